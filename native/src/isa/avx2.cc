// AVX2 and FMA: floats, and integers by products of 16 bits (those of 8 bits, vpmaddubsw, saturate).
#define MOBILENET_ISA avx2
#include "isa.h"

#include "../kernels/depthwise.h"
#include "../kernels/elementwise.h"
#include "../kernels/gemm.h"
#include "../kernels/integer.h"
#include "avx2_vectors.h"
#include "rest_of_block.h"

namespace mobilenet::MOBILENET_ISA {

struct GemmF32 : Float8 {
  using Weight = __m256;
  static constexpr int MAX_PIXELS = 6, PIXEL_BYTES = 64, WORD_BYTES = 4;
  static Acc init(const void *bias, int channel) { return load(static_cast<const float *>(bias) + channel); }
  static Weight load(const char *weights) { return _mm256_loadu_ps(reinterpret_cast<const float *>(weights)); }
  using Float8::load;
  // As assembly, or compilers load the broadcasts of all pixels first and spill the sums.
  static __m256 word(const char *a) {
    __m256 x;
    asm("vbroadcastss %1, %0" : "=x"(x) : "m"(*reinterpret_cast<const float *>(a)));
    return x;
  }
  static void mac(Acc &acc, Weight w, __m256 word) {
    asm("vfmadd231ps %2, %1, %0" : "+x"(acc) : "x"(w), "x"(word));
  }
  template <int P, int NV>
  static inline __attribute__((always_inline)) void finish(Acc (&acc)[P][NV], const GemmCall &call, int channel,
                                                           int64_t pixel) {
    finish_float<Float8, StoreF32, P, NV>(acc, call, channel, pixel);
    if constexpr (NV == 1) clear_rest(call.out + (channel / BLOCK) * call.out_block, pixel, P, 8);
  }
};

// A vector holds four channels, two sums each: of words' first and second pair of inputs. The weights stay in
// memory, which is as fast and leaves the registers to more pixels.
struct GemmU8 {
  using Acc = __m256i;
  using Weight = const __m256i_u *;
  static constexpr int LANES = 4, MAX_PIXELS = 3, PIXEL_BYTES = 16, WORD_BYTES = 8;
  static Acc init(const void *bias, int channel) {
    const char *at = static_cast<const char *>(bias) + channel * 4;
    return _mm256_cvtepu32_epi64(_mm_loadu_si128(reinterpret_cast<const __m128i *>(at)));
  }
  static Acc zero() { return _mm256_setzero_si256(); }
  static Acc sum(Acc a, Acc b) { return _mm256_add_epi32(a, b); }
  static Weight load(const char *p) { return reinterpret_cast<Weight>(p); }
  static __m256i word(const char *a) {
    __m256i x;
    asm("vpbroadcastd %1, %0" : "=x"(x) : "m"(*reinterpret_cast<const int32_t *>(a)));
    const __m256i widened = _mm256_set1_epi64x(int64_t(0x8003'8002'8001'8000));
    return _mm256_shuffle_epi8(x, widened);
  }
  static void mac(Acc &acc, Weight w, __m256i word) {
    __m256i products;
    asm("vpmaddwd %2, %1, %0" : "=x"(products) : "x"(word), "m"(*w));
    acc = _mm256_add_epi32(acc, products);
  }
  template <int P, int NV>
  static inline __attribute__((always_inline)) void finish(Acc (&acc)[P][NV], const GemmCall &call, int channel,
                                                           int64_t pixel) {
    __m256i sums[P][2];
    MOBILENET_UNROLL
    for (int p = 0; p < P; p++) {
      sums[p][1] = zero();
      MOBILENET_UNROLL
      for (int v = 0; v < NV / 2; v++)
        sums[p][v] = _mm256_permute4x64_epi64(_mm256_hadd_epi32(acc[p][2 * v], acc[p][2 * v + 1]), 0xd8);
    }
    finish_integer<Across, Table, P>(sums, call, channel, pixel);
  }
};

struct Depthwise : Beside {
  static constexpr int TAPS = 2;
  static void columns(const Bytes (&pixels)[2], Vector (&four)[4]) {
    const __m256i zero = _mm256_setzero_si256();
    const __m256i low = _mm256_unpacklo_epi8(pixels[0], pixels[1]);
    const __m256i high = _mm256_unpackhi_epi8(pixels[0], pixels[1]);
    four[0] = _mm256_unpacklo_epi8(low, zero), four[1] = _mm256_unpackhi_epi8(low, zero);
    four[2] = _mm256_unpacklo_epi8(high, zero), four[3] = _mm256_unpackhi_epi8(high, zero);
  }
  static void mac(Vector &acc, Vector columns, Vector weight) {
    acc = _mm256_add_epi32(acc, _mm256_madd_epi16(columns, weight));
  }
};

static void pack_word(const int8_t weights[4], char *packed) {
  const int16_t wide[4] = {weights[0], weights[1], weights[2], weights[3]};
  __builtin_memcpy(packed, wide, sizeof wide);
}

void add_float(Kernels &kernels) {
  constexpr int f32 = int(Element::f32);
  kernels.has[f32] = true;
  kernels.gemm[f32] = gemm<GemmF32>;
  kernels.gemv[f32] = gemv<GemmF32>;
  add_float_elementwise<Float8, StoreF32>(kernels, Element::f32);
  kernels.depthwise[f32] = depthwise_whole<Float8, StoreF32>;
  kernels.depthwise_weights[f32] = depthwise_float_weights;
  kernels.pack_depthwise[f32] = pack_depthwise_float;
  kernels.word_bytes[f32] = GemmF32::WORD_BYTES;
  kernels.tile_pixels[f32] = GemmF32::MAX_PIXELS;
  kernels.panel[f32] = 16;
}

void add_integer(Kernels &kernels) {
  constexpr int u8 = int(Element::u8);
  kernels.has[u8] = true;
  kernels.gemm[u8] = gemm<GemmU8>;
  kernels.gemv[u8] = gemv<GemmU8>;
  add_integer_elementwise(kernels);
  add_depthwise_integer<Depthwise, Table>(kernels);
  kernels.word_bytes[u8] = GemmU8::WORD_BYTES;
  kernels.tile_pixels[u8] = GemmU8::MAX_PIXELS;
  kernels.panel[u8] = 16;
  kernels.pack_word = pack_word;
  kernels.input_offset = 0;
}

}  // namespace mobilenet::MOBILENET_ISA
