// AVX-512 VNNI: depthwise convolutions.
//
// Four columns of a channel in one 32-bit lane (a quad), made from four pixels by one byte shuffle, meet four
// weights in one instruction. Of a row of the kernel, output x needs the columns x .. x + width - 1 (dilation 1):
// the quads that begin at x, x + 4, ... Two neighbouring outputs share quads: the odd one's weights are shifted by
// a column. Where the kernel is at most 5 wide, two more outputs use the same: what begins two columns later is
// blended of two quads, [4 5 2 3] of [0 1 2 3] and [4 5 6 7], and their weights are in that order.
// Packed: for each kernel row, for each output (4, or 2 where the kernel is wider), for each quad: 16 channels x 4
// weights.
#pragma once

#include <algorithm>
#include <cstring>

#include "avx512vnni_finish.h"

namespace mobilenet::avx512vnni {

static inline int quads_of(int kernel_width) { return (kernel_width + 1 + 3) / 4; }

static inline int outputs_of(int kernel_width) { return kernel_width <= 5 ? 4 : 2; }

static size_t depthwise_weights(int kernel_height, int kernel_width) {
  return size_t(kernel_height * outputs_of(kernel_width) * quads_of(kernel_width)) * 64;
}

static void pack_depthwise(const void *weights, int kernel_height, int kernel_width, char *packed) {
  const int8_t *w = static_cast<const int8_t *>(weights);
  for (int ky = 0; ky < kernel_height; ky++)
    for (int output = 0; output < outputs_of(kernel_width); output++)
      for (int quad = 0; quad < quads_of(kernel_width); quad++)
        for (int c = 0; c < BLOCK; c++)
          for (int i = 0; i < 4; i++) {
            const int column = quad * 4 + i + (output >= 2 && quad == 0 && i < 2 ? 4 : 0);
            const int kx = column - output;
            // The columns 4 and 5 have been met in the blended quad.
            const bool met = output >= 2 && quad == 1 && i < 2;
            const bool inside = kx >= 0 && kx < kernel_width && !met;
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
    w += outputs_of(call.kernel_width) * QUADS * 64;
  }
}

template <int STRIDE, int QUADS>
static void depthwise_row(const DepthwiseCall &call) {
  const Epilogue &e = *call.epilogue;
  const __m512i order = quad_order();
  const __m512i bias = load(static_cast<const int32_t *>(e.bias) + call.block * BLOCK);
  const Finish finish(e);
  const __m512 scale = _mm512_loadu_ps(e.scale + call.block * BLOCK);
  for (int64_t x = 0; x < call.pixels; x += 4) {
    __m512i acc[4] = {bias, bias, bias, bias};
    depthwise_four<STRIDE, QUADS>(call, x, order, acc);
    const int64_t rest = call.pixels - x;
    finish.template operator()<false>(acc, scale, call.out + x * BLOCK, nullptr, rest < 4 ? int(rest) : 4);
  }
}

// Of stride 1, output x and those that follow it `dilation` apart need columns that far apart, and no others: what
// was said of neighbours holds of them. Nothing is read beyond the last column that an output needs.
template <int SIZE>
static void depthwise_dilated(const DepthwiseCall &call) {
  constexpr int QUADS = (SIZE + 1 + 3) / 4;
  const Epilogue &e = *call.epilogue;
  const Finish finish(e);
  const __m512i order = quad_order(), bias = load(static_cast<const int32_t *>(e.bias) + call.block * BLOCK);
  const __m512 scale = _mm512_loadu_ps(e.scale + call.block * BLOCK);
  const int64_t apart = call.dilation, last = call.pixels - 1 + (SIZE - 1) * apart;
  const auto columns = [&](const char *row, int64_t x) {
    const auto pixel = [&](int i) {
      return _mm_loadu_si128(reinterpret_cast<const __m128i *>(row + std::min(x + i * apart, last) * BLOCK));
    };
    const __m256i low = _mm256_inserti128_si256(_mm256_castsi128_si256(pixel(0)), pixel(1), 1);
    const __m256i high = _mm256_inserti128_si256(_mm256_castsi128_si256(pixel(2)), pixel(3), 1);
    return _mm512_permutexvar_epi8(order, _mm512_inserti64x4(_mm512_castsi256_si512(low), high, 1));
  };
  for (int64_t first = 0; first < apart && first < call.pixels; first++) {
    __m512i kept[SIZE];
    MOBILENET_UNROLL
    for (int ky = 0; ky < SIZE; ky++) kept[ky] = columns(call.rows[ky], first);
    for (int64_t x = first; x < call.pixels; x += 4 * apart) {
      __m512i acc[4] = {bias, bias, bias, bias};
      const char *w = call.weights;
      MOBILENET_UNROLL
      for (int ky = 0; ky < SIZE; ky++) {
        const __m512i next = columns(call.rows[ky], x + 4 * apart);
        const __m512i between = _mm512_mask_blend_epi16(0xaaaaaaaa, next, kept[ky]);
        MOBILENET_UNROLL
        for (int i = 0; i < 4; i++, w += QUADS * 64) {
          acc[i] = _mm512_dpbusd_epi32(acc[i], i < 2 ? kept[ky] : between, load(w));
          if constexpr (QUADS == 2) acc[i] = _mm512_dpbusd_epi32(acc[i], next, load(w + 64));
        }
        kept[ky] = next;
      }
      alignas(64) char four[64];
      finish.template operator()<false>(acc, scale, four, nullptr, 4);
      for (int64_t i = 0, to = x; i < 4 && to < call.pixels; i++, to += apart)
        std::memcpy(call.out + to * BLOCK, four + i * BLOCK, BLOCK);
    }
  }
}

// Any stride, dilation and width: one tap at a time.
static void depthwise_any(const DepthwiseCall &call) {
  const Epilogue &e = *call.epilogue;
  const int quads = quads_of(call.kernel_width);
  const Finish finish(e);
  const __m512 scale = _mm512_loadu_ps(e.scale + call.block * BLOCK);
  for (int64_t x = 0; x < call.pixels; x++) {
    __m512i sum = load(static_cast<const int32_t *>(e.bias) + call.block * BLOCK);
    for (int ky = 0; ky < call.kernel_height; ky++)
      for (int kx = 0; kx < call.kernel_width; kx++) {
        const char *a = call.rows[ky] + (x * call.stride + kx * call.dilation) * BLOCK;
        const __m512i value = _mm512_cvtepu8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i *>(a)));
        const char *w = call.weights + (ky * outputs_of(call.kernel_width) * quads + kx / 4) * 64;
        const __m512i weight =
            _mm512_srai_epi32(_mm512_sll_epi32(load(w), _mm_cvtsi32_si128(24 - kx % 4 * 8)), 24);
        sum = _mm512_add_epi32(sum, _mm512_mullo_epi32(value, weight));
      }
    const __m512i one[4] = {sum, sum, sum, sum};
    finish.template operator()<false>(one, scale, call.out + x * BLOCK, nullptr, 1);
  }
}

// Rows of 3 x 3 or 5 x 5 kernels. The quads of a row are loaded once, four pixels apart, and kept from one group
// of four outputs to the next. The weights of 3 x 3 stay in registers; those of 5 x 5 are loaded for two rows of
// outputs at once, as a load takes as long as a product.
template <int SIZE, int STRIDE, bool PLAIN>
class DepthwiseSliding {
  static constexpr int QUADS = (SIZE + 1 + 3) / 4, ROW = 4 * QUADS;
  // What the loops read is copied first: a store of bytes might change anything else.
  const Finish finish_;
  const __m512i order_, bias_;
  const __m512 scale_;
  const int64_t pixels_, row_step_;
  const char *const packed_;
  __m512i kernel_[SIZE == 3 ? SIZE * ROW : 1];

 public:
  explicit inline __attribute__((always_inline)) DepthwiseSliding(const DepthwiseCall &call)
      : finish_(*call.epilogue), order_(quad_order()),
        bias_(load(static_cast<const int32_t *>(call.epilogue->bias) + call.block * BLOCK)),
        scale_(_mm512_loadu_ps(call.epilogue->scale + call.block * BLOCK)), pixels_(call.pixels),
        row_step_(call.row_step), packed_(call.weights) {
    if constexpr (SIZE == 3) {
      MOBILENET_UNROLL
      for (int i = 0; i < SIZE * ROW; i++) kernel_[i] = load(packed_ + i * 64);
    }
  }

  // ROWS rows of outputs.
  template <int ROWS>
  inline __attribute__((always_inline)) void rows(const char *const *first, char *out) const {
    const char *from[ROWS][SIZE];
    __m512i kept[ROWS][SIZE];
    MOBILENET_UNROLL
    for (int r = 0; r < ROWS; r++) {
      MOBILENET_UNROLL
      for (int ky = 0; ky < SIZE; ky++) {
        from[r][ky] = first[r * row_step_ + ky];
        kept[r][ky] = columns(from[r][ky], 0);
      }
    }
    for (int64_t x = 0; x < pixels_; x += 4) {
      __m512i acc[ROWS][4];
      MOBILENET_UNROLL
      for (int r = 0; r < ROWS; r++) {
        MOBILENET_UNROLL
        for (int i = 0; i < 4; i++) acc[r][i] = bias_;
      }
      MOBILENET_UNROLL
      for (int ky = 0; ky < SIZE; ky++) {
        __m512i quads[ROWS][2 * STRIDE + 1];  // columns 0, 2, 4, ... of the group and what follows it
        MOBILENET_UNROLL
        for (int r = 0; r < ROWS; r++) {
          quads[r][0] = kept[r][ky];
          MOBILENET_UNROLL
          for (int q = 2; q <= 2 * STRIDE; q += 2) {
            quads[r][q] = columns(from[r][ky], x * STRIDE + 2 * q);
            quads[r][q - 1] = blend(quads[r][q - 2], quads[r][q]);
          }
          kept[r][ky] = quads[r][2 * STRIDE];
        }
        MOBILENET_UNROLL
        for (int output = 0; output < 4; output++) {
          // Of stride 1, outputs 0 and 1 begin in one quad; of stride 2, each in its own.
          const int begin = STRIDE == 1 ? output / 2 : output, packed = STRIDE == 1 ? output : output % 2 * 2;
          add<ROWS>(acc, output, ky * ROW + packed * QUADS, quads, begin);
        }
      }
      const int64_t rest = pixels_ - x;
      MOBILENET_UNROLL
      for (int r = 0; r < ROWS; r++)
        finish_.template operator()<PLAIN>(acc[r], scale_, out + (r * pixels_ + x) * BLOCK, nullptr,
                                           rest < 4 ? int(rest) : 4);
    }
  }

 private:
  inline __m512i columns(const char *row, int64_t x) const {
    return _mm512_permutexvar_epi8(order_, load(row + x * BLOCK));
  }
  // [4 5 2 3] of [0 1 2 3] and [4 5 6 7]
  static inline __m512i blend(__m512i low, __m512i high) { return _mm512_mask_blend_epi16(0xaaaaaaaa, high, low); }

  template <int ROWS>
  inline __m512i loaded(int at) const {
    __m512i weights = load(packed_ + at * 64);
    if constexpr (ROWS > 1) asm("" : "+v"(weights));  // or compilers load it again for each product
    return weights;
  }

  template <int ROWS, int N>
  inline __attribute__((always_inline)) void add(__m512i (&acc)[ROWS][4], int output, int at,
                                                 const __m512i (&quads)[ROWS][N], int begin) const {
    const __m512i weights = SIZE == 3 ? kernel_[at] : loaded<ROWS>(at);
    MOBILENET_UNROLL
    for (int r = 0; r < ROWS; r++) acc[r][output] = _mm512_dpbusd_epi32(acc[r][output], quads[r][begin], weights);
    if constexpr (SIZE == 5) {
      // what the blended quad begins with has met its weights there
      const __m512i later = loaded<ROWS>(at + 1);
      const int next = begin / 2 * 2 + 2;
      MOBILENET_UNROLL
      for (int r = 0; r < ROWS; r++) acc[r][output] = _mm512_dpbusd_epi32(acc[r][output], quads[r][next], later);
    }
  }
};

template <int SIZE, int STRIDE, bool PLAIN>
static void depthwise_sliding(const DepthwiseCall &call) {
  constexpr int ROWS = SIZE == 5 ? 2 : 1;
  const DepthwiseSliding<SIZE, STRIDE, PLAIN> sliding(call);
  const char *const *rows = call.rows;
  char *out = call.out;
  int64_t y = 0;
  const auto next = [&]<int N>(std::integral_constant<int, N>) {
    sliding.template rows<N>(rows, out);
    y += N, rows += N * call.row_step, out += N * call.pixels * BLOCK;
  };
  while (y + ROWS <= call.output_rows) next(std::integral_constant<int, ROWS>());
  if (ROWS > 1 && y < call.output_rows) next(std::integral_constant<int, 1>());
}

template <int SIZE>
static void depthwise_square(const DepthwiseCall &call) {
  const bool plain = Finish(*call.epilogue).plain();
  if (call.stride == 1)
    plain ? depthwise_sliding<SIZE, 1, true>(call) : depthwise_sliding<SIZE, 1, false>(call);
  else
    plain ? depthwise_sliding<SIZE, 2, true>(call) : depthwise_sliding<SIZE, 2, false>(call);
}

static void depthwise(const DepthwiseCall &call) {
  const bool near = call.dilation == 1 && call.stride <= 2;
  const int size = call.kernel_height == call.kernel_width ? call.kernel_width : 0;
  if (call.stride == 1 && call.dilation > 1 && size == 3) return each_row<depthwise_dilated<3>, 1>(call);
  if (call.stride == 1 && call.dilation > 1 && size == 5) return each_row<depthwise_dilated<5>, 1>(call);
  if (near && size == 3) return depthwise_square<3>(call);
  if (near && size == 5) return depthwise_square<5>(call);
  switch (near ? quads_of(call.kernel_width) * 2 + call.stride : 0) {
    case 1 * 2 + 1: return each_row<depthwise_row<1, 1>, 1>(call);
    case 1 * 2 + 2: return each_row<depthwise_row<2, 1>, 1>(call);
    case 2 * 2 + 1: return each_row<depthwise_row<1, 2>, 1>(call);
    case 2 * 2 + 2: return each_row<depthwise_row<2, 2>, 1>(call);
    default: return each_row<depthwise_any, 1>(call);
  }
}

}  // namespace mobilenet::avx512vnni
