// AVX-512 VNNI: from sums to the bytes of a layer's output.
#pragma once

#include <immintrin.h>

#include "../kernels.h"
#include "../kernels/unroll.h"

namespace mobilenet::avx512vnni {

static inline __m512i load(const void *p) { return _mm512_loadu_si512(p); }

// What a vector of 16 channels goes through: sums to int32 quanta without the zero point, not yet limited.
// Nothing overflows: layers.cc refuses layers whose largest sum times scale passes 2^31.
static inline __m512i quanta(__m512i sum, __m512 scale) {
  return _mm512_cvtps_epi32(_mm512_mul_ps(_mm512_cvtepi32_ps(sum), scale));
}

// Four pixels of 16 channels each, int32 without zero point, to bytes, pixel after pixel. The packs saturate;
// adding the zero point between them leaves what clamping to 0 .. 255 would.
static inline __m512i in_order(__m512i packed) {
  return _mm512_permutexvar_epi32(_mm512_set_epi32(15, 11, 7, 3, 14, 10, 6, 2, 13, 9, 5, 1, 12, 8, 4, 0), packed);
}
static inline __m512i bytes(const __m512i (&pixel)[4], __m512i zero) {
  const __m512i low = _mm512_adds_epi16(_mm512_packs_epi32(pixel[0], pixel[1]), zero);
  const __m512i high = _mm512_adds_epi16(_mm512_packs_epi32(pixel[2], pixel[3]), zero);
  return in_order(_mm512_packus_epi16(low, high));
}
// The same for a zero point of 0, which is what a relu usually has.
static inline __m512i plain_bytes(const __m512i (&pixel)[4]) {
  return in_order(_mm512_packus_epi16(_mm512_packs_epi32(pixel[0], pixel[1]),
                                      _mm512_packs_epi32(pixel[2], pixel[3])));
}

// Each half of the table answers for its own indices; the other half of the lanes keeps what it has, which for the
// first half is the index.
static inline __m512i look_up(const uint8_t *table, __m512i index) {
  const __mmask64 upper = _mm512_movepi8_mask(index);
  index = _mm512_mask2_permutex2var_epi8(load(table), index, ~upper, load(table + 64));
  return _mm512_mask2_permutex2var_epi8(load(table + 128), index, upper, load(table + 192));
}

static inline __mmask16 inside(int pixels) { return __mmask16((1u << (4 * pixels)) - 1); }
static inline void store_pixels(char *out, __m512i x, int pixels) {
  if (pixels == 4) return _mm512_storeu_si512(out, x);
  _mm512_mask_storeu_epi32(out, inside(pixels), x);
}
static inline __m512i load_pixels(const char *from, int pixels) {
  return pixels == 4 ? load(from) : _mm512_maskz_loadu_epi32(inside(pixels), from);
}

// What becomes of the sums of a call. Made once: a store of bytes might change anything that is read after it.
class Finish {
 public:
  explicit Finish(const Epilogue &e)
      : plain_(e.zero == 0 && e.low == 0 && e.high == 255 && !e.table && !e.residual && !e.row_sums),
        residual_(e.residual), limited_(e.low > 0 || e.high < 255),
        add_limited_(e.add_low > 0 || e.add_high < 255), table_(e.table),
        zero_(_mm512_set1_epi16(int16_t(e.zero))), low_(_mm512_set1_epi8(char(e.low))),
        high_(_mm512_set1_epi8(char(e.high))) {
    if (!residual_) return;
    factors_low_ = _mm512_set1_epi32((e.add_self & 127) | (e.add_other & 127) << 16);
    factors_high_ = _mm512_set1_epi32(e.add_self >> 7 | e.add_other >> 7 << 16);
    offset_ = _mm512_set1_epi32(e.add_offset);
    shift_ = _mm_cvtsi32_si128(e.add_shift);
    add_zero_ = _mm512_set1_epi16(int16_t(e.add_zero));
    add_low_ = _mm512_set1_epi8(char(e.add_low)), add_high_ = _mm512_set1_epi8(char(e.add_high));
  }

  // Whether nothing is left to do but to scale and to saturate.
  bool plain() const { return plain_; }

  // Sums of up to four pixels of 16 channels. `other` is what is added to them, beside `out`.
  template <bool PLAIN>
  inline __attribute__((always_inline)) void operator()(const __m512i (&sums)[4], __m512 scale, char *out,
                                                        const char *other, int pixels) const {
    __m512i four[4];
    MOBILENET_UNROLL
    for (int i = 0; i < 4; i++) four[i] = quanta(sums[i], scale);
    if constexpr (PLAIN) return store_pixels(out, plain_bytes(four), pixels);
    __m512i x = bytes(four, zero_);
    if (limited_) x = _mm512_min_epu8(_mm512_max_epu8(x, low_), high_);
    if (table_) x = look_up(table_, x);
    if (residual_) x = add_residual(x, other, pixels);
    store_pixels(out, x, pixels);
  }

 private:
  // x holds finished quanta; adds those of another tensor (rule 6 of reference_integer.py). The factors have 21
  // bits: x * factor is x * (the low 7 bits) + (x << 7) * (the rest), products of 16-bit numbers.
  __m512i add_residual(__m512i x, const char *other, int pixels) const {
    const __m512i y = load_pixels(other, pixels), none = _mm512_setzero_si512();
    const auto sums = [&](__m512i pairs) {  // x and y as int16, one pair a lane
      const __m512i sum = _mm512_dpwssd_epi32(offset_, pairs, factors_low_);
      return _mm512_sra_epi32(_mm512_dpwssd_epi32(sum, _mm512_slli_epi16(pairs, 7), factors_high_), shift_);
    };
    const auto words = [&](__m512i pairs) {  // eight channels of each pixel
      return _mm512_adds_epi16(_mm512_packs_epi32(sums(_mm512_unpacklo_epi8(pairs, none)),
                                                  sums(_mm512_unpackhi_epi8(pairs, none))),
                               add_zero_);
    };
    x = _mm512_packus_epi16(words(_mm512_unpacklo_epi8(x, y)), words(_mm512_unpackhi_epi8(x, y)));
    return add_limited_ ? _mm512_min_epu8(_mm512_max_epu8(x, add_low_), add_high_) : x;
  }

  bool plain_, residual_, limited_, add_limited_;
  const uint8_t *table_;
  __m512i zero_, low_, high_, factors_low_, factors_high_, offset_, add_zero_, add_low_, add_high_;
  __m128i shift_;
};

}  // namespace mobilenet::avx512vnni
