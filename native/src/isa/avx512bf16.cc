// AVX-512 BF16: products of pairs of bfloat16, summed in float.
#define MOBILENET_ISA avx512bf16
#include "isa.h"

#include "../kernels/depthwise.h"
#include "../kernels/elementwise.h"
#include "../kernels/gemm.h"
#include "avx512_vectors.h"

namespace mobilenet::MOBILENET_ISA {

static inline __m512 widen(__m256i x) {
  return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(x), 16));
}

struct StoreBf16Half {
  static constexpr int ELEMENT_BYTES = 2;
  static __m256 load(const char *p) {
    const __m128i x = _mm_loadu_si128(reinterpret_cast<const __m128i *>(p));
    return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(x), 16));
  }
  static void store(char *p, __m256 x) {
    const __m256i rounded = (__m256i)_mm512_cvtneps_pbh(_mm512_zextps256_ps512(x));
    _mm256_storeu_si256(reinterpret_cast<__m256i *>(p), rounded);
  }
};

struct StoreBf16 {
  using Half = StoreBf16Half;
  static constexpr int ELEMENT_BYTES = 2;
  static __m512 load(const char *p) { return widen(_mm256_loadu_si256(reinterpret_cast<const __m256i *>(p))); }
  static void store(char *p, __m512 x) {
    _mm256_storeu_si256(reinterpret_cast<__m256i *>(p), (__m256i)_mm512_cvtneps_pbh(x));
  }
};

struct GemmBf16Half : Float8 {
  using Weight = __m256i;
  static constexpr int MAX_PIXELS = 7, PIXEL_BYTES = 32, WORD_BYTES = 4;
  static Acc init(const void *bias, int channel) {
    return Float8::load(static_cast<const float *>(bias) + channel);
  }
  static Weight load(const char *weights) {
    return _mm256_loadu_si256(reinterpret_cast<const __m256i *>(weights));
  }
  static const int32_t *word(const char *a) { return reinterpret_cast<const int32_t *>(a); }
  static void mac(Acc &acc, Weight w, const int32_t *word) {
    asm("vdpbf16ps %2%{1to8%}, %1, %0" : "+v"(acc) : "v"(w), "m"(*word));
  }
  template <int P, int NV>
  static inline __attribute__((always_inline)) void finish(Acc (&acc)[P][NV], const GemmCall &call, int channel,
                                                           int64_t pixel) {
    if constexpr (P == 1)
      if (call.float_out) return finish_float<Float8, StoreF32Half, P, NV>(acc, call, channel, pixel);
    finish_float<Float8, StoreBf16Half, P, NV>(acc, call, channel, pixel);
  }
};

// The common epilogues: two pixels are rounded together, and limits are applied to 16 bits, in which numbers
// that are not negative compare like integers.
template <int P, int NV>
static inline __attribute__((always_inline)) void finish_pairs(__m512 (&acc)[P][NV], const GemmCall &call,
                                                               int channel, int64_t pixel) {
  const Activation activation = Activation(call.epilogue->activation);
  const __m512i lowest = _mm512_set1_epi16(activation == Activation::none ? int16_t(-32768) : int16_t(0));
  const __m512i six = _mm512_set1_epi16(activation == Activation::relu6 ? int16_t(0x40c0) : int16_t(32767));
  MOBILENET_UNROLL
  for (int v = 0; v < NV; v++) {
    char *out = call.out + (channel / BLOCK + v) * call.out_block + pixel * BLOCK * 2;
    MOBILENET_UNROLL
    for (int p = 0; p < P; p += 2) {
      const __m512i pair = (__m512i)_mm512_cvtne2ps_pbh(acc[p + 1 < P ? p + 1 : p][v], acc[p][v]);
      const __m512i limited = _mm512_min_epi16(_mm512_max_epi16(pair, lowest), six);
      if (p + 1 < P)
        _mm512_storeu_si512(out + p * BLOCK * 2, limited);
      else
        _mm256_storeu_si256(reinterpret_cast<__m256i *>(out + p * BLOCK * 2), _mm512_castsi512_si256(limited));
    }
  }
}

struct GemmBf16 : Float16 {
  using Half = GemmBf16Half;
  using Weight = __m512i;
  static constexpr int MAX_PIXELS = 7, PIXEL_BYTES = 32, WORD_BYTES = 4;
  static Acc init(const void *bias, int channel) {
    return Float16::load(static_cast<const float *>(bias) + channel);
  }
  static Weight load(const char *weights) { return _mm512_loadu_si512(weights); }
  static const int32_t *word(const char *a) { return reinterpret_cast<const int32_t *>(a); }
  static void mac(Acc &acc, Weight w, const int32_t *word) {
    asm("vdpbf16ps %2%{1to16%}, %1, %0" : "+v"(acc) : "v"(w), "m"(*word));
  }
  template <int P, int NV>
  static inline __attribute__((always_inline)) void finish(Acc (&acc)[P][NV], const GemmCall &call, int channel,
                                                           int64_t pixel) {
    if constexpr (P == 1)
      if (call.float_out) return finish_float<Float16, StoreF32, P, NV>(acc, call, channel, pixel);
    if (!call.epilogue->residual && call.epilogue->activation <= int(Activation::relu6))
      return finish_pairs<P, NV>(acc, call, channel, pixel);
    finish_float<Float16, StoreBf16, P, NV>(acc, call, channel, pixel);
  }
};

void add_bfloat16(Kernels &kernels) {
  constexpr int bf16 = int(Element::bf16);
  kernels.has[bf16] = true;
  kernels.narrow_line = narrow_line<Float16, StoreBf16>;
  kernels.gemm[bf16] = gemm<GemmBf16>;
  kernels.gemv[bf16] = gemv<GemmBf16>;
  add_float_elementwise<Float16, StoreBf16>(kernels, Element::bf16);
  kernels.depthwise[bf16] = depthwise<Float16, StoreBf16>;
  kernels.depthwise_weights[bf16] = depthwise_float_weights;
  kernels.pack_depthwise[bf16] = pack_depthwise_float;
  kernels.panel[bf16] = 32;
  kernels.word_bytes[bf16] = 4;
  kernels.tile_pixels[bf16] = GemmBf16::MAX_PIXELS;
}

}  // namespace mobilenet::MOBILENET_ISA
