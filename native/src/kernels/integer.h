// Sums of integers to bytes, residuals and depthwise convolutions, for instruction sets without AVX-512.
//
// The isa file declares, in namespace MOBILENET_ISA, structs I of vectors of int32, four of which make one vector
// of bytes: PIXELS pixels of 16 channels.
//   Vector, Floats, Bytes, Limits (made from a zero point, a low and a high byte)
//   set(x), add(a, b), mul(a, b), shift_right(a, count)
//   scales(p, four): of 16 channels, in the order of the four vectors; sums(p, four): the same of int32
//   quanta(sum, scale): rint(float(sum) * scale); beyond -512 .. 512, anything that is beyond on the same side
//   bytes(four, limits): zero point added, limited
//   widen(p, pixels, four): bytes to int32; store(p, bytes, pixels), pixels up to PIXELS
// A matrix kernel's I keeps a pixel's channels in VECTORS vectors, pixel after pixel. A depthwise kernel's I keeps
// four channels of all pixels in each of its four vectors, and has besides
//   TAPS: columns that one multiply takes, 2 (int16 weights) or 4 (int8 weights)
//   pixels(p, step): 16 bytes at p, at p + step ...; columns(pixels, four): TAPS columns of a channel side by side
//   weight(p): 16 bytes, for each pixel; mac(acc, columns, weight)
//   interleave(even, odd): outputs 0, 2, .. and 1, 3, .. to 0, 1, .. and what follows
// and TABLE, a struct with look_up(table, p, bytes): bytes in place through a table of 256.
#pragma once

#include "../kernels.h"
#include "unroll.h"

namespace mobilenet::MOBILENET_ISA {

// Adds another tensor to finished bytes, in place (rule 6 of reference_integer.py).
template <class I>
static __attribute__((noinline)) void add_residual(char *out, const char *other, int pixels, const Epilogue &e) {
  const typename I::Limits limits(e.add_zero, e.add_low, e.add_high);
  const auto self = I::set(e.add_self), factor = I::set(e.add_other), offset = I::set(e.add_offset);
  for (int p = 0; p < pixels; p += I::PIXELS) {
    const int count = pixels - p < I::PIXELS ? pixels - p : I::PIXELS;
    typename I::Vector x[4], y[4];
    I::widen(out + p * BLOCK, count, x);
    I::widen(other + p * BLOCK, count, y);
    MOBILENET_UNROLL
    for (int i = 0; i < 4; i++)
      x[i] = I::shift_right(I::add(I::add(I::mul(x[i], self), I::mul(y[i], factor)), offset), e.add_shift);
    I::store(out + p * BLOCK, I::bytes(x, limits), count);
  }
}

// The sums of one block of P pixels: scaled, limited, stored; what is rare happens to the stored bytes.
template <class I, class Table, int P>
static inline __attribute__((always_inline)) void finish_integer(typename I::Vector (&sums)[P][I::VECTORS],
                                                                 const GemmCall &call, int channel,
                                                                 int64_t pixel) {
  const Epilogue &e = *call.epilogue;
  if (e.row_sums)
    MOBILENET_UNROLL
    for (int p = 0; p < P; p++)
      MOBILENET_UNROLL
      for (int v = 0; v < I::VECTORS; v++) sums[p][v] = I::add(sums[p][v], I::set(e.row_sums[pixel + p]));
  const typename I::Limits limits(e.zero, e.low, e.high);
  typename I::Floats scale[4];
  I::scales(e.scale + channel, scale);
  char *out = call.out + (channel / BLOCK) * call.out_block + pixel * BLOCK;
  MOBILENET_UNROLL
  for (int p = 0; p < P; p += I::PIXELS) {
    typename I::Vector four[4];
    MOBILENET_UNROLL
    for (int i = 0; i < 4; i++) {
      const int from = p + i / I::VECTORS;
      four[i] = I::quanta(sums[from < P ? from : p][i % I::VECTORS], scale[i]);
    }
    I::store(out + p * BLOCK, I::bytes(four, limits), P - p < I::PIXELS ? P - p : I::PIXELS);
  }
  if (e.table) Table::look_up(e.table, out, P * BLOCK);
  if (e.residual)
    add_residual<I>(out, call.residual + (channel / BLOCK) * call.residual_block + pixel * BLOCK, P, e);
}

// Depthwise. Columns x .. x + TAPS - 1 of a channel lie side by side and meet TAPS weights in one instruction. Of
// stride 1, output x + 1 shares the columns of output x: its weights are shifted by one.
// Packed: for each kernel row, for each shift (0, 1), for each group of TAPS columns: 16 channels x TAPS weights.
template <class I>
static inline int column_groups(int kernel_width) {
  return (kernel_width + I::TAPS) / I::TAPS;
}

template <class I>
static size_t depthwise_weights(int kernel_height, int kernel_width) {
  return size_t(kernel_height) * 2 * size_t(column_groups<I>(kernel_width)) * 64;
}

template <class I>
static void pack_depthwise(const void *weights, int kernel_height, int kernel_width, char *packed) {
  const int8_t *w = static_cast<const int8_t *>(weights);
  const int columns = column_groups<I>(kernel_width) * I::TAPS;
  for (int ky = 0; ky < kernel_height; ky++)
    for (int shift = 0; shift < 2; shift++)
      for (int first = 0; first < columns; first += I::TAPS)
        for (int c = 0; c < BLOCK; c++)
          for (int kx = first - shift; kx < first - shift + I::TAPS; kx++) {
            const int16_t weight = kx >= 0 && kx < kernel_width ? w[(ky * kernel_width + kx) * BLOCK + c] : 0;
            __builtin_memcpy(packed, &weight, 4 / I::TAPS);  // the low byte comes first
            packed += 4 / I::TAPS;
          }
}

// 2 * PIXELS outputs of stride 1, without dilation. Reads up to TAPS + 2 * PIXELS pixels past the last.
template <class I>
static inline __attribute__((always_inline)) void depthwise_near(const DepthwiseCall &call, int64_t x,
                                                                 typename I::Vector (&even)[4],
                                                                 typename I::Vector (&odd)[4]) {
  const int groups = column_groups<I>(call.kernel_width);
  const char *w = call.weights;
  for (int ky = 0; ky < call.kernel_height; ky++) {
    const char *a = call.rows[ky] + x * BLOCK;
    for (int g = 0; g < groups; g++, w += 64, a += I::TAPS * BLOCK) {
      typename I::Bytes pixels[I::TAPS];
      MOBILENET_UNROLL
      for (int t = 0; t < I::TAPS; t++) pixels[t] = I::pixels(a + t * BLOCK, 2 * BLOCK);
      typename I::Vector columns[4];
      I::columns(pixels, columns);
      MOBILENET_UNROLL
      for (int v = 0; v < 4; v++) {
        I::mac(even[v], columns[v], I::weight(w + v * 16));
        I::mac(odd[v], columns[v], I::weight(w + groups * 64 + v * 16));
      }
    }
    w += groups * 64;
  }
}

// PIXELS outputs of any stride and dilation; nothing is read that no output sees.
template <class I>
static inline __attribute__((always_inline)) void depthwise_far(const DepthwiseCall &call, int64_t x,
                                                                typename I::Vector (&acc)[4]) {
  const int groups = column_groups<I>(call.kernel_width), width = call.kernel_width;
  const int64_t dilation = call.dilation * int64_t(BLOCK);
  const int64_t step = x + I::PIXELS <= call.pixels ? call.stride * int64_t(BLOCK) : 0;
  for (int ky = 0; ky < call.kernel_height; ky++) {
    const char *a = call.rows[ky] + x * call.stride * BLOCK;
    const char *w = call.weights + int64_t(ky) * 2 * groups * 64;
    for (int kx = 0; kx < width; kx += I::TAPS, w += 64) {
      typename I::Bytes pixels[I::TAPS];
      MOBILENET_UNROLL
      for (int t = 0; t < I::TAPS; t++) pixels[t] = I::pixels(a + (kx + t < width ? kx + t : kx) * dilation, step);
      typename I::Vector columns[4];
      I::columns(pixels, columns);
      MOBILENET_UNROLL
      for (int v = 0; v < 4; v++) I::mac(acc[v], columns[v], I::weight(w + v * 16));
    }
  }
}

template <class I>
static inline __attribute__((always_inline)) typename I::Bytes scaled(const typename I::Vector (&sums)[4],
                                                                      const typename I::Floats (&scale)[4],
                                                                      const typename I::Limits &limits) {
  typename I::Vector four[4];
  MOBILENET_UNROLL
  for (int i = 0; i < 4; i++) four[i] = I::quanta(sums[i], scale[i]);
  return I::bytes(four, limits);
}

template <class I, class Table>
static void depthwise_integer(const DepthwiseCall &call) {
  const Epilogue &e = *call.epilogue;
  const typename I::Limits limits(e.zero, e.low, e.high);
  typename I::Floats scale[4];
  I::scales(e.scale + call.block * BLOCK, scale);
  typename I::Vector bias[4];
  I::sums(static_cast<const int32_t *>(e.bias) + call.block * BLOCK, bias);
  const bool near = call.stride == 1 && call.dilation == 1;
  for (int64_t x = 0; x < call.pixels;) {
    const int64_t rest = call.pixels - x;
    char *out = call.out + x * BLOCK;
    typename I::Vector even[4] = {bias[0], bias[1], bias[2], bias[3]};
    if (near) {
      typename I::Vector odd[4] = {bias[0], bias[1], bias[2], bias[3]};
      depthwise_near<I>(call, x, even, odd);
      auto first = scaled<I>(even, scale, limits), second = scaled<I>(odd, scale, limits);
      I::interleave(first, second);
      I::store(out, first, rest < I::PIXELS ? int(rest) : I::PIXELS);
      if (rest > I::PIXELS)
        I::store(out + I::PIXELS * BLOCK, second, rest < 2 * I::PIXELS ? int(rest) - I::PIXELS : I::PIXELS);
      x += 2 * I::PIXELS;
    } else {
      depthwise_far<I>(call, x, even);
      I::store(out, scaled<I>(even, scale, limits), rest < I::PIXELS ? int(rest) : I::PIXELS);
      x += I::PIXELS;
    }
  }
  if (e.table) Table::look_up(e.table, call.out, call.pixels * BLOCK);
}

// As table_u8 of elementwise.h.
template <class Table>
static void activate_integer(const char *a, const char *, char *out, int64_t pixels, const Elementwise &how) {
  if (a != out) __builtin_memcpy(out, a, size_t(pixels) * BLOCK);
  Table::look_up(how.table, out, pixels * BLOCK);
}

template <class I, class Table>
static void add_depthwise_integer(Kernels &kernels) {
  constexpr int u8 = int(Element::u8);
  kernels.depthwise[u8] = each_row<depthwise_integer<I, Table>, 1>;
  kernels.depthwise_weights[u8] = depthwise_weights<I>;
  kernels.pack_depthwise[u8] = pack_depthwise<I>;
  kernels.activate[u8] = activate_integer<Table>;
  kernels.pixels_over_read[int(Element::u8)] = I::TAPS + 2 * I::PIXELS;
}

}  // namespace mobilenet::MOBILENET_ISA
