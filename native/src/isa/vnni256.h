// Products of uint8 inputs with int8 weights, four at a time, on vectors of 256 bits. Compiled either with the VEX
// encoding of AVX-VNNI or with the EVEX one of AVX-512 VL and VNNI: processors have one, the other, or both.
#pragma once

#include "../kernels/elementwise.h"
#include "../kernels/gemm.h"
#include "../kernels/integer.h"
#include "avx2_vectors.h"

namespace mobilenet::MOBILENET_ISA {

#if defined(__AVX512VNNI__) && defined(__AVX512VL__)
#define MOBILENET_DPBUSD "vpdpbusd"
#else
#define MOBILENET_DPBUSD "%{vex%} vpdpbusd"
#endif

// As assembly, or compilers load the broadcasts of all pixels first and spill the sums.
static inline void dot_product(__m256i &acc, __m256i inputs, __m256i weights) {
  asm(MOBILENET_DPBUSD " %2, %1, %0" : "+x"(acc) : "x"(inputs), "x"(weights));
}
#undef MOBILENET_DPBUSD

struct GemmU8 {
  using Acc = __m256i;
  using Weight = __m256i;
  static constexpr int LANES = 8, MAX_PIXELS = 6, PIXEL_BYTES = 16, WORD_BYTES = 4;
  static Weight load(const char *p) { return _mm256_loadu_si256(reinterpret_cast<const __m256i *>(p)); }
  static Acc init(const void *bias, int channel) { return load(static_cast<const char *>(bias) + channel * 4); }
  static Acc zero() { return _mm256_setzero_si256(); }
  static Acc sum(Acc a, Acc b) { return _mm256_add_epi32(a, b); }
  static __m256i word(const char *a) {
    __m256i x;
    asm("vpbroadcastd %1, %0" : "=x"(x) : "m"(*reinterpret_cast<const int32_t *>(a)));
    return x;
  }
  static void mac(Acc &acc, Weight w, __m256i word) { dot_product(acc, word, w); }
  template <int P, int NV>
  static inline __attribute__((always_inline)) void finish(Acc (&acc)[P][NV], const GemmCall &call, int channel,
                                                           int64_t pixel) {
    __m256i sums[P][2];
    MOBILENET_UNROLL
    for (int p = 0; p < P; p++) sums[p][0] = acc[p][0], sums[p][1] = NV == 2 ? acc[p][NV - 1] : zero();
    finish_integer<Across, Table, P>(sums, call, channel, pixel);
  }
};

struct Depthwise : Beside {
  static constexpr int TAPS = 4;
  static void columns(const Bytes (&pixels)[4], Vector (&four)[4]) {
    const __m256i low01 = _mm256_unpacklo_epi8(pixels[0], pixels[1]);
    const __m256i low23 = _mm256_unpacklo_epi8(pixels[2], pixels[3]);
    const __m256i high01 = _mm256_unpackhi_epi8(pixels[0], pixels[1]);
    const __m256i high23 = _mm256_unpackhi_epi8(pixels[2], pixels[3]);
    four[0] = _mm256_unpacklo_epi16(low01, low23), four[1] = _mm256_unpackhi_epi16(low01, low23);
    four[2] = _mm256_unpacklo_epi16(high01, high23), four[3] = _mm256_unpackhi_epi16(high01, high23);
  }
  static void mac(Vector &acc, Vector columns, Vector weight) { dot_product(acc, columns, weight); }
};

static void pack_word(const int8_t weights[4], char *packed) { __builtin_memcpy(packed, weights, 4); }

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
