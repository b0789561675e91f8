// Vectors of AVX2.
#pragma once
#include <immintrin.h>

#include "../kernels.h"
#include "../kernels/unroll.h"

namespace mobilenet::MOBILENET_ISA {

struct Float8 {
  using Acc = __m256;
  static constexpr int LANES = 8, DEPTHWISE_PIXELS = 8, REGISTERS = 16;
  static Acc set(float x) { return _mm256_set1_ps(x); }
  static Acc load(const float *p) { return _mm256_loadu_ps(p); }
  static void store(float *p, Acc x) { _mm256_storeu_ps(p, x); }
  static Acc add(Acc a, Acc b) { return _mm256_add_ps(a, b); }
  static Acc zero() { return _mm256_setzero_ps(); }
  static Acc sum(Acc a, Acc b) { return add(a, b); }
  static Acc mul(Acc a, Acc b) { return _mm256_mul_ps(a, b); }
  static Acc min(Acc a, Acc b) { return _mm256_min_ps(a, b); }
  static Acc max(Acc a, Acc b) { return _mm256_max_ps(a, b); }
  static void fma(Acc &acc, Acc a, Acc b) { acc = _mm256_fmadd_ps(a, b, acc); }
};

struct StoreF32 {
  static constexpr int ELEMENT_BYTES = 4;
  static __m256 load(const char *p) { return _mm256_loadu_ps(reinterpret_cast<const float *>(p)); }
  static void store(char *p, __m256 x) { _mm256_storeu_ps(reinterpret_cast<float *>(p), x); }
};

// What both orders of 32-bit sums have in common: two pixels of 16 channels in four vectors.
struct Int8 {
  using Vector = __m256i;
  using Floats = __m256;
  using Bytes = __m256i;
  static constexpr int PIXELS = 2;
  struct Limits {
    __m256i zero, low, high;
    Limits(int32_t zero_point, uint8_t lowest, uint8_t highest)
        : zero(_mm256_set1_epi16(int16_t(zero_point))), low(_mm256_set1_epi8(char(lowest))),
          high(_mm256_set1_epi8(char(highest))) {}
  };
  static Vector set(int32_t x) { return _mm256_set1_epi32(x); }
  static Vector add(Vector a, Vector b) { return _mm256_add_epi32(a, b); }
  static Vector mul(Vector a, Vector b) { return _mm256_mullo_epi32(a, b); }
  static Vector shift_right(Vector a, int count) { return _mm256_sra_epi32(a, _mm_cvtsi32_si128(count)); }
  static Vector quanta(Vector sum, Floats scale) {
    return _mm256_cvtps_epi32(_mm256_mul_ps(_mm256_cvtepi32_ps(sum), scale));
  }
  // The packs saturate: adding the zero point between them leaves what clamping to 0 .. 255 would. Each works on
  // the halves of its vectors apart.
  static Bytes packed(const Vector (&four)[4], const Limits &limits) {
    const __m256i low = _mm256_adds_epi16(_mm256_packs_epi32(four[0], four[1]), limits.zero);
    const __m256i high = _mm256_adds_epi16(_mm256_packs_epi32(four[2], four[3]), limits.zero);
    return _mm256_min_epu8(_mm256_max_epu8(_mm256_packus_epi16(low, high), limits.low), limits.high);
  }
  static void store(char *p, Bytes x, int pixels) {
    if (pixels == 2) return _mm256_storeu_si256(reinterpret_cast<__m256i *>(p), x);
    _mm_storeu_si128(reinterpret_cast<__m128i *>(p), _mm256_castsi256_si128(x));
  }
};

// Eight channels of one pixel in a vector: what matrix kernels have.
struct Across : Int8 {
  static constexpr int VECTORS = 2;
  static void scales(const float *p, Floats (&four)[4]) {
    four[0] = four[2] = _mm256_loadu_ps(p);
    four[1] = four[3] = _mm256_loadu_ps(p + 8);
  }
  static Bytes bytes(const Vector (&four)[4], const Limits &limits) {
    return _mm256_permutevar8x32_epi32(packed(four, limits), _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7));
  }
  static void widen(const char *p, int pixels, Vector (&four)[4]) {
    const char *second = p + (pixels - 1) * BLOCK;
    const char *from[4] = {p, p + 8, second, second + 8};
    MOBILENET_UNROLL
    for (int i = 0; i < 4; i++)
      four[i] = _mm256_cvtepu8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i *>(from[i])));
  }
};

// Four channels of two pixels in a vector: what depthwise kernels have.
struct Beside : Int8 {
  static void scales(const float *p, Floats (&four)[4]) {
    MOBILENET_UNROLL
    for (int i = 0; i < 4; i++) four[i] = _mm256_broadcast_ps(reinterpret_cast<const __m128 *>(p + 4 * i));
  }
  static Vector weight(const char *p) {
    return _mm256_broadcastsi128_si256(_mm_loadu_si128(reinterpret_cast<const __m128i *>(p)));
  }
  static void sums(const int32_t *p, Vector (&four)[4]) {
    MOBILENET_UNROLL
    for (int i = 0; i < 4; i++) four[i] = weight(reinterpret_cast<const char *>(p + 4 * i));
  }
  static Bytes bytes(const Vector (&four)[4], const Limits &limits) { return packed(four, limits); }
  static Bytes pixels(const char *p, int64_t step) {
    const __m128i first = _mm_loadu_si128(reinterpret_cast<const __m128i *>(p));
    return _mm256_inserti128_si256(_mm256_castsi128_si256(first),
                                   _mm_loadu_si128(reinterpret_cast<const __m128i *>(p + step)), 1);
  }
  static void interleave(Bytes &even, Bytes &odd) {
    const __m256i first = _mm256_permute2x128_si256(even, odd, 0x20);
    odd = _mm256_permute2x128_si256(even, odd, 0x31);
    even = first;
  }
};

// 256 bytes, 16 at a time: a shuffle answers 0 where bit 7 of its index is set, and index - 16 * i, with 112 added
// and saturated, has it set unless row i is meant.
struct Table {
  static __m256i of(const uint8_t *table, __m256i index) {
    const __m256i up = _mm256_set1_epi8(112), sixteen = _mm256_set1_epi8(16);
    __m256i found = _mm256_setzero_si256();
    for (int i = 0; i < 16; i++) {
      const __m256i row =
          _mm256_broadcastsi128_si256(_mm_loadu_si128(reinterpret_cast<const __m128i *>(table + 16 * i)));
      found = _mm256_or_si256(found, _mm256_shuffle_epi8(row, _mm256_adds_epu8(index, up)));
      index = _mm256_sub_epi8(index, sixteen);
    }
    return found;
  }
  // `bytes` is a multiple of 16.
  static __attribute__((noinline)) void look_up(const uint8_t *table, char *p, int64_t bytes) {
    int64_t i = 0;
    for (; i + 32 <= bytes; i += 32) {
      __m256i *at = reinterpret_cast<__m256i *>(p + i);
      _mm256_storeu_si256(at, of(table, _mm256_loadu_si256(at)));
    }
    if (i == bytes) return;
    __m128i *at = reinterpret_cast<__m128i *>(p + i);
    _mm_storeu_si128(at, _mm256_castsi256_si128(of(table, _mm256_castsi128_si256(_mm_loadu_si128(at)))));
  }
};

}  // namespace mobilenet::MOBILENET_ISA
