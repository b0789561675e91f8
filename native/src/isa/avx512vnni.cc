// AVX-512 VNNI, VBMI and VBMI2: products of uint8 inputs with int8 weights, four at a time.
#define MOBILENET_ISA avx512vnni
#include "isa.h"

#include <algorithm>

#include "../kernels/elementwise.h"
#include "avx512vnni_depthwise.h"
#include "avx512vnni_gemm.h"

namespace mobilenet::avx512vnni {

// As table_u8 of elementwise.h, 64 bytes at a time; pixels come in blocks of 16 bytes.
static void table_wide(const char *a, const char *, char *out, int64_t pixels, const Elementwise &how) {
  const int64_t end = pixels * BLOCK;
  int64_t i = 0;
  for (; i + 64 <= end; i += 64) _mm512_storeu_si512(out + i, look_up(how.table, load(a + i)));
  for (; i < end; i++) out[i] = char(how.table[uint8_t(a[i])]);
}

// As mul_gate_u8 of elementwise.h, four pixels at a time.
static void mul_gate_wide(const char *a, const char *gate, char *out, int64_t pixels, const Elementwise &how) {
  const bool limited = how.low > 0 || how.high < 255;
  const __m512i zero = _mm512_set1_epi16(int16_t(how.zero));
  const __m512i low = _mm512_set1_epi8(char(how.low)), high = _mm512_set1_epi8(char(how.high));
  const __m512i stored = _mm512_cvtepu8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i *>(gate)));
  const __m512 factor = _mm512_cvtepi32_ps(_mm512_sub_epi32(stored, _mm512_set1_epi32(how.zero_b)));
  const __m512 scale = _mm512_set1_ps(how.scale);
  const __m512 offset = _mm512_mul_ps(factor, _mm512_set1_ps(-float(how.zero_a)));
  // (x - zero_a) * factor is exact in float, for all three are bytes.
  const auto gated = [&](__m128i bytes_of_pixel) {
    const __m512 x = _mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(bytes_of_pixel));
    return _mm512_cvtps_epi32(_mm512_mul_ps(_mm512_fmadd_ps(x, factor, offset), scale));
  };
  const auto four_pixels = [&](int64_t p, int count) {
    __m512i four[4];
    MOBILENET_UNROLL
    for (int i = 0; i < 4; i++)
      four[i] = gated(_mm_loadu_si128(reinterpret_cast<const __m128i *>(a + (p + (i < count ? i : 0)) * BLOCK)));
    const __m512i x = bytes(four, zero);
    store_pixels(out + p * BLOCK, limited ? _mm512_min_epu8(_mm512_max_epu8(x, low), high) : x, count);
  };
  int64_t p = 0;
  for (; p + 4 <= pixels; p += 4) four_pixels(p, 4);
  if (p < pixels) four_pixels(p, int(pixels - p));
}

// As mean_u8: a product with ones sums four pixels.
static void mean_wide(const char *a, const char *unused, char *out, int64_t pixels, const Elementwise &how) {
  if (pixels > 65536) return mean_u8(a, unused, out, pixels, how);
  const __m512i order = quad_order(), ones = _mm512_set1_epi8(1);
  __m512i even = _mm512_setzero_si512(), odd = even;
  int64_t p = 0;
  for (; p + 8 <= pixels; p += 8) {
    even = _mm512_dpbusd_epi32(even, _mm512_permutexvar_epi8(order, load(a + p * BLOCK)), ones);
    odd = _mm512_dpbusd_epi32(odd, _mm512_permutexvar_epi8(order, load(a + (p + 4) * BLOCK)), ones);
  }
  even = _mm512_add_epi32(even, odd);
  for (; p < pixels; p++)
    even = _mm512_add_epi32(
        even, _mm512_cvtepu8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i *>(a + p * BLOCK))));
  const __m512i total = _mm512_sub_epi32(even, _mm512_set1_epi32(int32_t(pixels) * how.zero_a));
  const __m512i rounded = quanta(total, _mm512_set1_ps(how.scale));
  const __m512i four[4] = {rounded, rounded, rounded, rounded};
  const __m512i x = bytes(four, _mm512_set1_epi16(int16_t(how.zero)));
  store_pixels(out, _mm512_min_epu8(_mm512_max_epu8(x, _mm512_set1_epi8(char(how.low))),
                                    _mm512_set1_epi8(char(how.high))), 1);
}

// As row_sums, four pixels at a time: products with ones, added up over the runs, then over the four lanes of a
// pixel.
static void row_sums_wide(const char *a, const Run *runs, const int *channels, int run_count, int64_t pixels,
                          int32_t factor, int32_t offset, int32_t *sums) {
  int32_t total = 0;
  for (int r = 0; r < run_count; r++) total += channels[r] * offset;
  for (int64_t p = 0; p < pixels; p += 4) {
    const int count = pixels - p < 4 ? int(pixels - p) : 4;
    const __mmask16 inside = __mmask16((1u << (4 * count)) - 1);
    __m512i sum = _mm512_setzero_si512();
    for (int r = 0; r < run_count; r++) {
      const __mmask64 lanes = channels[r] < BLOCK ? 0x0001000100010001u * ((1u << channels[r]) - 1) : ~0ull;
      const __m512i x = _mm512_maskz_loadu_epi32(inside, a + runs[r].offset + p * BLOCK);
      sum = _mm512_dpbusd_epi32(sum, x, _mm512_maskz_set1_epi8(lanes, 1));
    }
    sum = _mm512_add_epi32(sum, _mm512_shuffle_epi32(sum, _MM_PERM_BADC));
    sum = _mm512_add_epi32(sum, _mm512_shuffle_epi32(sum, _MM_PERM_CDAB));
    const int32_t four[4] = {_mm_cvtsi128_si32(_mm512_castsi512_si128(sum)),
                             _mm_cvtsi128_si32(_mm512_extracti32x4_epi32(sum, 1)),
                             _mm_cvtsi128_si32(_mm512_extracti32x4_epi32(sum, 2)),
                             _mm_cvtsi128_si32(_mm512_extracti32x4_epi32(sum, 3))};
    for (int i = 0; i < count; i++) sums[p + i] = factor * (four[i] - total);
  }
}

// Four pixels at a time; a block of each takes bytes of two rows.
static void unfold_3_rows(const char *const *rows, int64_t step, int bytes, int64_t pixels, char *out,
                          int64_t out_block) {
  alignas(64) uint8_t first[64], second[64];
  for (int i = 0; i < 64; i++) {
    const int begin = int(step) * (i / BLOCK), tap = i % BLOCK, later = std::min(tap + BLOCK, 3 * bytes - 1);
    first[i] = uint8_t(tap < bytes ? begin + tap : 64 + begin + tap - bytes);
    second[i] = uint8_t(later < 2 * bytes ? begin + later - bytes : 64 + begin + later - 2 * bytes);
  }
  const __m512i one = load(first), two = load(second);
  for (int64_t p = 0; p < pixels; p += 4) {
    const int64_t at = p * step;
    const __m512i middle = load(rows[1] + at);
    _mm512_storeu_si512(out + p * BLOCK, _mm512_permutex2var_epi8(load(rows[0] + at), one, middle));
    _mm512_storeu_si512(out + out_block + p * BLOCK, _mm512_permutex2var_epi8(middle, two, load(rows[2] + at)));
  }
}

static void pack_word(const int8_t weights[4], char *packed) { __builtin_memcpy(packed, weights, 4); }

void add_integer(Kernels &kernels) {
  constexpr int u8 = int(Element::u8);
  kernels.has[u8] = true;
  kernels.gemm[u8] = gemm<GemmU8>;
  kernels.gemv[u8] = gemv<GemmU8>;
  add_integer_elementwise(kernels);
  kernels.activate[u8] = table_wide;
  kernels.mul_gate[u8] = mul_gate_wide;
  kernels.mean[u8] = mean_wide;
  kernels.row_sums = row_sums_wide;
  kernels.depthwise[u8] = depthwise;
  kernels.depthwise_weights[u8] = depthwise_weights;
  kernels.pack_depthwise[u8] = pack_depthwise;
  kernels.panel[u8] = 32;
  kernels.word_bytes[u8] = 4;
  kernels.tile_pixels[u8] = GemmU8::MAX_PIXELS;
  kernels.unfold_3_rows = unfold_3_rows;
  kernels.pack_word = pack_word;
  kernels.input_offset = 0;
  kernels.pixels_over_read[int(Element::u8)] = 16;
}

}  // namespace mobilenet::avx512vnni
