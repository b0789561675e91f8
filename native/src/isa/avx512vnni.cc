// AVX-512 VNNI, VBMI and VBMI2: products of uint8 inputs with int8 weights, four at a time.
#define MOBILENET_ISA avx512vnni
#include "isa.h"

#include <immintrin.h>

#include "../kernels/elementwise.h"
#include "../kernels/gemm.h"

namespace mobilenet::MOBILENET_ISA {

static inline __m512i load(const void *p) { return _mm512_loadu_si512(p); }

// What a vector of 16 channels goes through: sums to int32 quanta without the zero point, not yet limited.
// Nothing overflows: pack.cc refuses layers whose largest sum times scale passes 2^31.
static inline __m512i quanta(__m512i sum, __m512 scale) {
  return _mm512_cvtps_epi32(_mm512_mul_ps(_mm512_cvtepi32_ps(sum), scale));
}

// Four pixels of 16 channels each, int32 without zero point, to bytes, pixel after pixel. The packs saturate;
// adding the zero point between them leaves what clamping to 0 .. 255 would.
static inline __m512i bytes(const __m512i (&pixel)[4], __m512i zero) {
  const __m512i order = _mm512_set_epi32(15, 11, 7, 3, 14, 10, 6, 2, 13, 9, 5, 1, 12, 8, 4, 0);
  const __m512i low = _mm512_adds_epi16(_mm512_packs_epi32(pixel[0], pixel[1]), zero);
  const __m512i high = _mm512_adds_epi16(_mm512_packs_epi32(pixel[2], pixel[3]), zero);
  return _mm512_permutexvar_epi32(order, _mm512_packus_epi16(low, high));
}

static inline __m512i look_up(const uint8_t *table, __m512i index) {
  const __m512i low = _mm512_permutex2var_epi8(load(table), index, load(table + 64));
  const __m512i high = _mm512_permutex2var_epi8(load(table + 128), index, load(table + 192));
  return _mm512_mask_blend_epi8(_mm512_movepi8_mask(index), low, high);
}

// The same where nothing is left to do but to saturate: zero point 0, which is what a relu usually has.
static inline __m512i plain_bytes(const __m512i (&pixel)[4]) {
  const __m512i order = _mm512_set_epi32(15, 11, 7, 3, 14, 10, 6, 2, 13, 9, 5, 1, 12, 8, 4, 0);
  return _mm512_permutexvar_epi32(order, _mm512_packus_epi16(_mm512_packs_epi32(pixel[0], pixel[1]),
                                                             _mm512_packs_epi32(pixel[2], pixel[3])));
}

static inline bool is_plain(const Epilogue &e) {
  return e.zero == 0 && e.low == 0 && e.high == 255 && !e.table && !e.residual && !e.row_sums;
}

static inline void store_pixels(char *out, __m512i x, int pixels) {
  if (pixels == 4) return _mm512_storeu_si512(out, x);
  _mm512_mask_storeu_epi32(out, __mmask16((1u << (4 * pixels)) - 1), x);
}

// x holds finished quanta of up to four pixels; adds those of another tensor (rule 6 of reference_integer.py).
static inline __m512i add_residual(__m512i x, const char *other, int pixels, const Epilogue &e) {
  const __m512i y = _mm512_maskz_loadu_epi32(__mmask16((1u << (4 * pixels)) - 1), other);
  const __m512i self = _mm512_set1_epi32(e.add_self), factor = _mm512_set1_epi32(e.add_other);
  const __m512i offset = _mm512_set1_epi32(e.add_offset);
  const __m128i shift = _mm_cvtsi32_si128(e.add_shift);
  __m512i sum[4];
#define MOBILENET_LANE(i)                                                                    \
  sum[i] = _mm512_sra_epi32(                                                                 \
      _mm512_add_epi32(                                                                      \
          _mm512_add_epi32(_mm512_mullo_epi32(_mm512_cvtepu8_epi32(_mm512_extracti32x4_epi32(x, i)), self),    \
                           _mm512_mullo_epi32(_mm512_cvtepu8_epi32(_mm512_extracti32x4_epi32(y, i)), factor)), \
          offset),                                                                           \
      shift)
  MOBILENET_LANE(0);
  MOBILENET_LANE(1);
  MOBILENET_LANE(2);
  MOBILENET_LANE(3);
#undef MOBILENET_LANE
  x = bytes(sum, _mm512_set1_epi16(int16_t(e.add_zero)));
  return _mm512_min_epu8(_mm512_max_epu8(x, _mm512_set1_epi8(char(e.add_low))),
                         _mm512_set1_epi8(char(e.add_high)));
}

// The limits of an output, kept in registers over a tile.
struct Limits {
  __m512i low, high;
  const uint8_t *table;
  explicit Limits(const Epilogue &e)
      : low(_mm512_set1_epi8(char(e.low))), high(_mm512_set1_epi8(char(e.high))), table(e.table) {}
  __m512i operator()(__m512i x) const {
    x = _mm512_min_epu8(_mm512_max_epu8(x, low), high);
    return table ? look_up(table, x) : x;
  }
};

template <int P, int NV>
static inline __attribute__((always_inline)) void finish_integer(__m512i (&acc)[P][NV], const GemmCall &call,
                                                                 int channel, int64_t pixel) {
  const Epilogue &e = *call.epilogue;
  if (is_plain(e)) {
    MOBILENET_UNROLL
    for (int v = 0; v < NV; v++) {
      const int c = channel + 16 * v;
      const __m512 scale = _mm512_loadu_ps(e.scale + c);
      char *out = call.out + (c / BLOCK) * call.out_block + pixel * BLOCK;
      MOBILENET_UNROLL
      for (int p = 0; p < P; p += 4) {
        __m512i four[4];
        MOBILENET_UNROLL
        for (int i = 0; i < 4; i++) four[i] = quanta(acc[p + i < P ? p + i : p][v], scale);
        store_pixels(out + p * BLOCK, plain_bytes(four), P - p < 4 ? P - p : 4);
      }
    }
    return;
  }
  if (e.row_sums) {
    MOBILENET_UNROLL
    for (int p = 0; p < P; p++) {
      const __m512i sum = _mm512_set1_epi32(e.row_sums[pixel + p]);
      MOBILENET_UNROLL
      for (int v = 0; v < NV; v++) acc[p][v] = _mm512_add_epi32(acc[p][v], sum);
    }
  }
  const __m512i zero = _mm512_set1_epi16(int16_t(e.zero));
    const Limits limits(e);
    const bool residual = e.residual;
    MOBILENET_UNROLL
    for (int v = 0; v < NV; v++) {
    const int c = channel + 16 * v;
    const __m512 scale = _mm512_loadu_ps(e.scale + c);
    char *out = call.out + (c / BLOCK) * call.out_block + pixel * BLOCK;
    const char *other = call.residual + (c / BLOCK) * call.residual_block + pixel * BLOCK;
    MOBILENET_UNROLL
    for (int p = 0; p < P; p += 4) {
      __m512i four[4];
      MOBILENET_UNROLL
      for (int i = 0; i < 4; i++) four[i] = quanta(acc[p + i < P ? p + i : p][v], scale);
      const int pixels = P - p < 4 ? P - p : 4;
      __m512i x = limits(bytes(four, zero));
      if (residual) x = add_residual(x, other + p * BLOCK, pixels, e);
      store_pixels(out + p * BLOCK, x, pixels);
    }
  }
}

struct GemmU8Half {
  using Acc = __m256i;
  using Weight = __m256i;
  static constexpr int LANES = 8, MAX_PIXELS = 8, PIXEL_BYTES = 16, WORD_BYTES = 4;
  static Acc init(const void *bias, int channel) { return load(static_cast<const char *>(bias) + channel * 4); }
  static Acc zero() { return _mm256_setzero_si256(); }
  static Acc sum(Acc a, Acc b) { return _mm256_add_epi32(a, b); }
  static Weight load(const char *p) { return _mm256_loadu_si256(reinterpret_cast<const __m256i *>(p)); }
  static __m256i word(const char *a) {
    __m256i x;
    asm("vpbroadcastd %1, %0" : "=v"(x) : "m"(*reinterpret_cast<const int32_t *>(a)));
    return x;
  }
  static void mac(Acc &acc, Weight w, __m256i word) { asm("vpdpbusd %2, %1, %0" : "+v"(acc) : "v"(word), "v"(w)); }
  template <int P, int NV>
  static inline __attribute__((always_inline)) void finish(Acc (&acc)[P][NV], const GemmCall &call, int channel,
                                                           int64_t pixel) {
    __m512i wide[P][NV];
    MOBILENET_UNROLL
    for (int p = 0; p < P; p++) wide[p][0] = _mm512_zextsi256_si512(acc[p][0]);
    finish_integer<P, NV>(wide, call, channel, pixel);
  }
};

struct GemmU8 {
  using Half = GemmU8Half;
  using Acc = __m512i;
  using Weight = __m512i;
  static constexpr int LANES = 16, MAX_PIXELS = 7, FEW_PIXELS = 7, PIXEL_BYTES = 16, WORD_BYTES = 4;
  static Acc init(const void *bias, int channel) { return load(static_cast<const char *>(bias) + channel * 4); }
  static Acc zero() { return _mm512_setzero_si512(); }
  static Acc sum(Acc a, Acc b) { return _mm512_add_epi32(a, b); }
  static Weight load(const char *p) { return _mm512_loadu_si512(p); }
  static __m512i word(const char *a) {
    __m512i x;
    asm("vpbroadcastd %1, %0" : "=v"(x) : "m"(*reinterpret_cast<const int32_t *>(a)));
    return x;
  }
  static void mac(Acc &acc, Weight w, __m512i word) { asm("vpdpbusd %2, %1, %0" : "+v"(acc) : "v"(word), "v"(w)); }
  template <int P, int NV>
  static inline __attribute__((always_inline)) void finish(Acc (&acc)[P][NV], const GemmCall &call, int channel,
                                                           int64_t pixel) {
    finish_integer<P, NV>(acc, call, channel, pixel);
  }
};

// Depthwise. Four columns of a channel in one 32-bit lane, made from four pixels by one byte shuffle, meet four
// weights in one instruction. Of a row of the kernel, output x needs the columns x .. x + width - 1 (dilation 1):
// the quads that begin at x, x + 4, ... For stride 1 two outputs share quads: the odd one's weights are shifted by
// a column. Packed: for each kernel row, for each shift (0, 1), for each quad: 16 channels x 4 weights.
static inline int quads_of(int kernel_width) { return (kernel_width + 1 + 3) / 4; }

static size_t depthwise_weights(int kernel_height, int kernel_width) {
  return size_t(kernel_height) * 2 * size_t(quads_of(kernel_width)) * 64;
}

static void pack_depthwise(const void *weights, int kernel_height, int kernel_width, char *packed) {
  const int8_t *w = static_cast<const int8_t *>(weights);
  const int quads = quads_of(kernel_width);
  for (int ky = 0; ky < kernel_height; ky++)
    for (int shift = 0; shift < 2; shift++)
      for (int quad = 0; quad < quads; quad++)
        for (int c = 0; c < BLOCK; c++)
          for (int i = 0; i < 4; i++) {
            const int kx = quad * 4 + i - shift;
            const bool inside = kx >= 0 && kx < kernel_width;
            *packed++ = inside ? char(w[(ky * kernel_width + kx) * BLOCK + c]) : char(0);
          }
}

static inline __m512i quad_order() {
  alignas(64) uint8_t order[64];
  for (int c = 0; c < 16; c++)
    for (int i = 0; i < 4; i++) order[c * 4 + i] = uint8_t(i * 16 + c);
  return load(order);
}

// Four outputs of a row; STRIDE 1 or 2, QUADS of a kernel row. Reads up to 4 * QUADS + 6 pixels.
template <int STRIDE, int QUADS>
static inline __attribute__((always_inline)) void depthwise_four(const DepthwiseCall &call, int64_t x,
                                                                 __m512i order, __m512i (&acc)[4]) {
  const char *w = call.weights;
  for (int ky = 0; ky < call.kernel_height; ky++) {
    const char *a = call.rows[ky] + x * STRIDE * BLOCK;
    MOBILENET_UNROLL
    for (int q = 0; q < QUADS; q++) {
      const __m512i even = load(w + q * 64), odd = load(w + (QUADS + q) * 64);
      if constexpr (STRIDE == 1) {
        MOBILENET_UNROLL
        for (int i = 0; i < 4; i += 2) {
          const __m512i columns = _mm512_permutexvar_epi8(order, load(a + (i + 4 * q) * BLOCK));
          acc[i] = _mm512_dpbusd_epi32(acc[i], columns, even);
          acc[i + 1] = _mm512_dpbusd_epi32(acc[i + 1], columns, odd);
        }
      } else {
        MOBILENET_UNROLL
        for (int i = 0; i < 4; i++) {
          const __m512i columns = _mm512_permutexvar_epi8(order, load(a + (i * STRIDE + 4 * q) * BLOCK));
          acc[i] = _mm512_dpbusd_epi32(acc[i], columns, even);
        }
      }
    }
    w += 2 * QUADS * 64;
  }
}

template <int STRIDE, int QUADS>
static void depthwise_row(const DepthwiseCall &call) {
  const Epilogue &e = *call.epilogue;
  const __m512i order = quad_order(), zero = _mm512_set1_epi16(int16_t(e.zero));
  const __m512i bias = load(static_cast<const int32_t *>(e.bias) + call.block * BLOCK);
  const Limits limits(e);
  const __m512 scale = _mm512_loadu_ps(e.scale + call.block * BLOCK);
  for (int64_t x = 0; x < call.pixels; x += 4) {
    __m512i acc[4] = {bias, bias, bias, bias};
    depthwise_four<STRIDE, QUADS>(call, x, order, acc);
    MOBILENET_UNROLL
    for (__m512i &sum : acc) sum = quanta(sum, scale);
    const int64_t rest = call.pixels - x;
    store_pixels(call.out + x * BLOCK, limits(bytes(acc, zero)), rest < 4 ? int(rest) : 4);
  }
}

// Any stride, dilation and width: one tap at a time.
static void depthwise_any(const DepthwiseCall &call) {
  const Epilogue &e = *call.epilogue;
  const int quads = quads_of(call.kernel_width);
  const Limits limits(e);
  const __m512 scale = _mm512_loadu_ps(e.scale + call.block * BLOCK);
  for (int64_t x = 0; x < call.pixels; x++) {
    __m512i sum = load(static_cast<const int32_t *>(e.bias) + call.block * BLOCK);
    for (int ky = 0; ky < call.kernel_height; ky++)
      for (int kx = 0; kx < call.kernel_width; kx++) {
        const char *a = call.rows[ky] + (x * call.stride + kx * call.dilation) * BLOCK;
        const __m512i value = _mm512_cvtepu8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i *>(a)));
        const char *w = call.weights + ((ky * 2) * quads + kx / 4) * 64;
        const __m512i weight =
            _mm512_srai_epi32(_mm512_sll_epi32(load(w), _mm_cvtsi32_si128(24 - kx % 4 * 8)), 24);
        sum = _mm512_add_epi32(sum, _mm512_mullo_epi32(value, weight));
      }
    const __m512i one[4] = {quanta(sum, scale), quanta(sum, scale), quanta(sum, scale), quanta(sum, scale)};
    store_pixels(call.out + x * BLOCK, limits(bytes(one, _mm512_set1_epi16(int16_t(e.zero)))), 1);
  }
}

// A row of 3 x 3 or 5 x 5 kernels. The quads of a row are loaded once, four pixels apart, and kept from one
// group of four outputs to the next; those that begin two pixels later are shifted out of two neighbours.
template <int HEIGHT, int WIDTH, int STRIDE>
static void depthwise_sliding(const DepthwiseCall &call) {
  constexpr int QUADS = (WIDTH + 1 + 3) / 4;
  const Epilogue &e = *call.epilogue;
  const Limits limits(e);
  const __m512i order = quad_order(), zero = _mm512_set1_epi16(int16_t(e.zero));
  const __m512i bias = load(static_cast<const int32_t *>(e.bias) + call.block * BLOCK);
  const __m512 scale = _mm512_loadu_ps(e.scale + call.block * BLOCK);
  // What the loop reads is copied first: a store of bytes might change anything else.
  const char *rows[HEIGHT], *const packed = call.weights;
  MOBILENET_UNROLL
  for (int ky = 0; ky < HEIGHT; ky++) rows[ky] = call.rows[ky];
  __m512i kernel[HEIGHT == 3 ? HEIGHT * 2 : 1];
  if constexpr (HEIGHT == 3) {
    MOBILENET_UNROLL
    for (int i = 0; i < HEIGHT * 2; i++) kernel[i] = load(packed + i * QUADS * 64);
  }
  const auto columns = [&](int ky, int64_t x) {
    return _mm512_permutexvar_epi8(order, load(rows[ky] + x * BLOCK));
  };
  const auto weights = [&](int ky, int shift, int quad) {
    if constexpr (HEIGHT == 3) return kernel[ky * 2 + shift];
    return load(packed + ((ky * 2 + shift) * QUADS + quad) * 64);
  };
  const int64_t pixels = call.pixels;
  char *out = call.out;
  const auto later = [](__m512i low, __m512i high) { return _mm512_shrdi_epi32(low, high, 16); };
  __m512i kept[HEIGHT];
  MOBILENET_UNROLL
  for (int ky = 0; ky < HEIGHT; ky++) kept[ky] = columns(ky, 0);
  for (int64_t x = 0; x < pixels; x += 4, out += 4 * BLOCK) {
    __m512i acc[4] = {bias, bias, bias, bias};
    MOBILENET_UNROLL
    for (int ky = 0; ky < HEIGHT; ky++) {
      const __m512i even = weights(ky, 0, 0);
      const __m512i first = kept[ky], second = columns(ky, x * STRIDE + 4), between = later(first, second);
      if constexpr (STRIDE == 1) {
        const __m512i odd = weights(ky, 1, 0);
        acc[0] = _mm512_dpbusd_epi32(acc[0], first, even);
        acc[1] = _mm512_dpbusd_epi32(acc[1], first, odd);
        acc[2] = _mm512_dpbusd_epi32(acc[2], between, even);
        acc[3] = _mm512_dpbusd_epi32(acc[3], between, odd);
        if constexpr (QUADS == 2) {
          const __m512i rest = later(second, second), even2 = weights(ky, 0, 1), odd2 = weights(ky, 1, 1);
          acc[0] = _mm512_dpbusd_epi32(acc[0], second, even2);
          acc[1] = _mm512_dpbusd_epi32(acc[1], second, odd2);
          acc[2] = _mm512_dpbusd_epi32(acc[2], rest, even2);
          acc[3] = _mm512_dpbusd_epi32(acc[3], rest, odd2);
        }
        kept[ky] = second;
      } else {
        const __m512i third = columns(ky, x * STRIDE + 8), beyond = later(second, third);
        acc[0] = _mm512_dpbusd_epi32(acc[0], first, even);
        acc[1] = _mm512_dpbusd_epi32(acc[1], between, even);
        acc[2] = _mm512_dpbusd_epi32(acc[2], second, even);
        acc[3] = _mm512_dpbusd_epi32(acc[3], beyond, even);
        if constexpr (QUADS == 2) {
          const __m512i even2 = weights(ky, 0, 1);
          acc[0] = _mm512_dpbusd_epi32(acc[0], second, even2);
          acc[1] = _mm512_dpbusd_epi32(acc[1], beyond, even2);
          acc[2] = _mm512_dpbusd_epi32(acc[2], third, even2);
          acc[3] = _mm512_dpbusd_epi32(acc[3], later(third, third), even2);
        }
        kept[ky] = third;
      }
    }
    MOBILENET_UNROLL
    for (__m512i &sum : acc) sum = quanta(sum, scale);
    const int64_t rest = pixels - x;
    store_pixels(out, limits(bytes(acc, zero)), rest < 4 ? int(rest) : 4);
  }
}

static void depthwise(const DepthwiseCall &call) {
  const bool near = call.dilation == 1 && call.stride <= 2;
  if (near && call.kernel_height == 3 && call.kernel_width == 3)
    return call.stride == 1 ? depthwise_sliding<3, 3, 1>(call) : depthwise_sliding<3, 3, 2>(call);
  if (near && call.kernel_height == 5 && call.kernel_width == 5)
    return call.stride == 1 ? depthwise_sliding<5, 5, 1>(call) : depthwise_sliding<5, 5, 2>(call);
  switch (near ? quads_of(call.kernel_width) * 2 + call.stride : 0) {
    case 1 * 2 + 1: return depthwise_row<1, 1>(call);
    case 1 * 2 + 2: return depthwise_row<2, 1>(call);
    case 2 * 2 + 1: return depthwise_row<1, 2>(call);
    case 2 * 2 + 2: return depthwise_row<2, 2>(call);
    default: return depthwise_any(call);
  }
}

// As table_u8 of elementwise.h, 64 bytes at a time; pixels come in blocks of 16 bytes.
static void table_wide(const char *a, const char *, char *out, int64_t pixels, const Elementwise &how) {
  const int64_t end = pixels * BLOCK;
  int64_t i = 0;
  for (; i + 64 <= end; i += 64) _mm512_storeu_si512(out + i, look_up(how.table, load(a + i)));
  for (; i < end; i++) out[i] = char(how.table[uint8_t(a[i])]);
}

// As mul_gate_u8 of elementwise.h, four pixels at a time.
static void mul_gate_wide(const char *a, const char *gate, char *out, int64_t pixels, const Elementwise &how) {
  const __m512i zero_a = _mm512_set1_epi32(how.zero_a), zero = _mm512_set1_epi16(int16_t(how.zero));
  const __m512i low = _mm512_set1_epi8(char(how.low)), high = _mm512_set1_epi8(char(how.high));
  const __m512i stored = _mm512_cvtepu8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i *>(gate)));
  const __m512 factor = _mm512_cvtepi32_ps(_mm512_sub_epi32(stored, _mm512_set1_epi32(how.zero_b)));
  const __m512 scale = _mm512_set1_ps(how.scale);
  for (int64_t p = 0; p < pixels; p += 4) {
    const int count = pixels - p < 4 ? int(pixels - p) : 4;
    __m512i four[4];
    MOBILENET_UNROLL
    for (int i = 0; i < 4; i++) {
      const char *from = a + (p + (i < count ? i : 0)) * BLOCK;
      const __m512i x = _mm512_cvtepu8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i *>(from)));
      // The product of two bytes is exact in float.
      const __m512 product = _mm512_mul_ps(_mm512_cvtepi32_ps(_mm512_sub_epi32(x, zero_a)), factor);
      four[i] = _mm512_cvtps_epi32(_mm512_mul_ps(product, scale));
    }
    store_pixels(out + p * BLOCK, _mm512_min_epu8(_mm512_max_epu8(bytes(four, zero), low), high), count);
  }
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
  kernels.pack_word = pack_word;
  kernels.input_offset = 0;
  kernels.pixels_over_read[int(Element::u8)] = 16;
}

}  // namespace mobilenet::MOBILENET_ISA
