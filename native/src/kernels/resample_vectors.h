// 16 sums of 32 bits in as many registers as they take, and what resampling does with them. Arithmetic is written
// over the vectors that g++ and clang have for every processor; only what widens, narrows and crosses lanes, which
// g++ would take to pieces, has intrinsics.
#pragma once

#include <cstdint>
#include <cstring>

#if defined(__SSE2__)
#include <immintrin.h>
#elif defined(__ARM_NEON)
#include <arm_neon.h>
#elif defined(__wasm_simd128__)
#include <wasm_simd128.h>
#endif

namespace mobilenet::MOBILENET_ISA {
namespace resampling {

#if defined(__AVX512BW__)
constexpr int LANES = 16;
#elif defined(__AVX2__)
constexpr int LANES = 8;
#else
constexpr int LANES = 4;
#endif
constexpr int REGISTERS = 16 / LANES;

typedef int32_t Lanes __attribute__((vector_size(4 * LANES)));

struct Sums {
  Lanes part[REGISTERS];
};

// 16 bytes as 16 numbers.
static inline void load(const uint8_t *p, Sums &to) {
#if defined(__AVX512BW__)
  to.part[0] = (Lanes)_mm512_cvtepu8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i *>(p)));
#elif defined(__AVX2__)
  for (int i = 0; i < 2; ++i)
    to.part[i] = (Lanes)_mm256_cvtepu8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i *>(p + 8 * i)));
#elif defined(__ARM_NEON)
  const uint8x16_t bytes = vld1q_u8(p);
  const uint16x8_t words[2] = {vmovl_u8(vget_low_u8(bytes)), vmovl_u8(vget_high_u8(bytes))};
  for (int i = 0; i < 2; ++i) {
    to.part[2 * i] = (Lanes)vmovl_u16(vget_low_u16(words[i]));
    to.part[2 * i + 1] = (Lanes)vmovl_u16(vget_high_u16(words[i]));
  }
#elif defined(__wasm_simd128__)
  for (int i = 0; i < 2; ++i) {
    const v128_t words = wasm_u16x8_load8x8(p + 8 * i);
    to.part[2 * i] = (Lanes)wasm_u32x4_extend_low_u16x8(words);
    to.part[2 * i + 1] = (Lanes)wasm_u32x4_extend_high_u16x8(words);
  }
#elif defined(__SSE2__)
  const __m128i bytes = _mm_loadu_si128(reinterpret_cast<const __m128i *>(p)), zero = _mm_setzero_si128();
  const __m128i words[2] = {_mm_unpacklo_epi8(bytes, zero), _mm_unpackhi_epi8(bytes, zero)};
  for (int i = 0; i < 2; ++i) {
    to.part[2 * i] = (Lanes)_mm_unpacklo_epi16(words[i], zero);
    to.part[2 * i + 1] = (Lanes)_mm_unpackhi_epi16(words[i], zero);
  }
#else
  for (int i = 0; i < 4; ++i) to.part[i] = Lanes{p[4 * i], p[4 * i + 1], p[4 * i + 2], p[4 * i + 3]};
#endif
}

static inline void clear(Sums &sums) {
  for (Lanes &part : sums.part) part = Lanes{};
}

// sums += values * weights, weights in 16 lanes.
static inline void multiply_add(Sums &sums, const Sums &values, const int32_t *weights) {
  for (int i = 0; i < REGISTERS; ++i) {
    Lanes w;
    std::memcpy(&w, weights + LANES * i, sizeof w);
    sums.part[i] += values.part[i] * w;
  }
}

static inline void multiply_add(Sums &sums, const Sums &values, int32_t weight) {
  for (int i = 0; i < REGISTERS; ++i) sums.part[i] += values.part[i] * weight;
}

// For each of four: the sum of its lanes 0, 4, 8, 12, of 1, 5, 9, 13, and so on; the four side by side.
static inline void add_quarters(const Sums (&four)[4], Sums &to) {
#if defined(__AVX512BW__)
  const auto half = [](Lanes a, Lanes b) {  // of each, lower half + upper half
    const __m512i x = (__m512i)a, y = (__m512i)b;
    return _mm512_add_epi32(_mm512_shuffle_i64x2(x, y, 0x44), _mm512_shuffle_i64x2(x, y, 0xee));
  };
  const __m512i x = half(four[0].part[0], four[1].part[0]), y = half(four[2].part[0], four[3].part[0]);
  to.part[0] = (Lanes)_mm512_add_epi32(_mm512_shuffle_i64x2(x, y, 0x88), _mm512_shuffle_i64x2(x, y, 0xdd));
#elif defined(__AVX2__)
  for (int i = 0; i < 2; ++i) {
    const __m256i x = (__m256i)(four[2 * i].part[0] + four[2 * i].part[1]);
    const __m256i y = (__m256i)(four[2 * i + 1].part[0] + four[2 * i + 1].part[1]);
    const __m256i lower = _mm256_permute2x128_si256(x, y, 0x20), upper = _mm256_permute2x128_si256(x, y, 0x31);
    to.part[i] = (Lanes)_mm256_add_epi32(lower, upper);
  }
#else
  for (int i = 0; i < 4; ++i) {
    const Lanes *part = four[i].part;
    to.part[i] = (part[0] + part[1]) + (part[2] + part[3]);
  }
#endif
}

// Numbers below 2^15 to bytes, clamped.
static inline void store(const Sums &levels, uint8_t *out) {
#if defined(__AVX512BW__)
  const __m512i positive = _mm512_max_epi32((__m512i)levels.part[0], _mm512_setzero_si512());
  _mm_storeu_si128(reinterpret_cast<__m128i *>(out), _mm512_cvtusepi32_epi8(positive));
#elif defined(__AVX2__)
  const __m256i words = _mm256_packs_epi32((__m256i)levels.part[0], (__m256i)levels.part[1]);
  const __m256i ordered = _mm256_permute4x64_epi64(words, 0xd8);
  const __m128i bytes = _mm_packus_epi16(_mm256_castsi256_si128(ordered), _mm256_extracti128_si256(ordered, 1));
  _mm_storeu_si128(reinterpret_cast<__m128i *>(out), bytes);
#elif defined(__ARM_NEON)
  uint16x4_t words[4];
  for (int i = 0; i < 4; ++i) words[i] = vqmovun_s32((int32x4_t)levels.part[i]);
  const uint16x8_t low = vcombine_u16(words[0], words[1]), high = vcombine_u16(words[2], words[3]);
  vst1q_u8(out, vcombine_u8(vqmovn_u16(low), vqmovn_u16(high)));
#elif defined(__wasm_simd128__)
  const v128_t low = wasm_i16x8_narrow_i32x4((v128_t)levels.part[0], (v128_t)levels.part[1]);
  const v128_t high = wasm_i16x8_narrow_i32x4((v128_t)levels.part[2], (v128_t)levels.part[3]);
  wasm_v128_store(out, wasm_u8x16_narrow_i16x8(low, high));
#elif defined(__SSE2__)
  const __m128i low = _mm_packs_epi32((__m128i)levels.part[0], (__m128i)levels.part[1]);
  const __m128i high = _mm_packs_epi32((__m128i)levels.part[2], (__m128i)levels.part[3]);
  _mm_storeu_si128(reinterpret_cast<__m128i *>(out), _mm_packus_epi16(low, high));
#else
  for (int i = 0; i < 16; ++i) {
    const int32_t level = levels.part[i / 4][i % 4];
    out[i] = uint8_t(level < 0 ? 0 : level > 255 ? 255 : level);
  }
#endif
}

}  // namespace resampling
}  // namespace mobilenet::MOBILENET_ISA
