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
// of four outputs to the next.
template <int SIZE, int STRIDE, bool PLAIN>
static void depthwise_sliding(const DepthwiseCall &call) {
  constexpr int QUADS = (SIZE + 1 + 3) / 4, ROW = 4 * QUADS;
  const Epilogue &e = *call.epilogue;
  const Finish finish(e);
  const __m512i order = quad_order(), bias = load(static_cast<const int32_t *>(e.bias) + call.block * BLOCK);
  const __m512 scale = _mm512_loadu_ps(e.scale + call.block * BLOCK);
  // What the loops read is copied first: a store of bytes might change anything else.
  const char *rows[SIZE], *const packed = call.weights;
  __m512i kernel[SIZE == 3 ? SIZE * ROW : 1];
  if constexpr (SIZE == 3) {
    MOBILENET_UNROLL
    for (int i = 0; i < SIZE * ROW; i++) kernel[i] = load(packed + i * 64);
  }
  const auto columns = [&](int ky, int64_t x) {
    return _mm512_permutexvar_epi8(order, load(rows[ky] + x * BLOCK));
  };
  // [4 5 2 3] of [0 1 2 3] and [4 5 6 7]
  const auto blend = [](__m512i low, __m512i high) { return _mm512_mask_blend_epi16(0xaaaaaaaa, high, low); };
  const auto add = [&](__m512i &sum, int ky, int output, __m512i first, __m512i second) {
    const int at = ky * ROW + output * QUADS;
    if constexpr (SIZE == 3) {
      sum = _mm512_dpbusd_epi32(sum, first, kernel[at]);
    } else {
      sum = _mm512_dpbusd_epi32(sum, first, load(packed + at * 64));
      sum = _mm512_dpbusd_epi32(sum, second, load(packed + (at + 1) * 64));
    }
  };
  const int64_t pixels = call.pixels, output_rows = call.output_rows, row_step = call.row_step;
  const char *const *const first_rows = call.rows;
  char *row_out = call.out;
  __m512i kept[SIZE];
  for (int64_t y = 0; y < output_rows; y++, row_out += pixels * BLOCK) {
    MOBILENET_UNROLL
    for (int ky = 0; ky < SIZE; ky++) {
      rows[ky] = first_rows[y * row_step + ky];
      kept[ky] = columns(ky, 0);
    }
    for (int64_t x = 0; x < pixels; x += 4) {
      __m512i acc[4] = {bias, bias, bias, bias};
      MOBILENET_UNROLL
      for (int ky = 0; ky < SIZE; ky++) {
        const __m512i first = kept[ky], second = columns(ky, x * STRIDE + 4), between = blend(first, second);
        if constexpr (STRIDE == 1) {
          add(acc[0], ky, 0, first, second);
          add(acc[1], ky, 1, first, second);
          add(acc[2], ky, 2, between, second);
          add(acc[3], ky, 3, between, second);
          kept[ky] = second;
        } else {
          const __m512i third = columns(ky, x * STRIDE + 8);
          add(acc[0], ky, 0, first, second);
          add(acc[1], ky, 2, between, second);
          add(acc[2], ky, 0, second, third);
          add(acc[3], ky, 2, blend(second, third), third);
          kept[ky] = third;
        }
      }
      const int64_t rest = pixels - x;
      finish.template operator()<PLAIN>(acc, scale, row_out + x * BLOCK, nullptr, rest < 4 ? int(rest) : 4);
    }
  }
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
