// Depthwise convolution of one output row of one block, for floats: any kernel, stride and dilation.
//
// The isa file declares F (vectors of floats: as for finish_float.h, and fma(acc, a, b)) and S (how an element is
// kept). The weights are floats, [kernel_height][kernel_width][16].
#pragma once

#include "../kernels.h"
#include "finish_float.h"
#include "unroll.h"

namespace mobilenet::MOBILENET_ISA {

// P outputs of LANES channels; STRIDE 0 means call.stride.
template <class F, class S, int P, int STRIDE>
static inline __attribute__((always_inline)) void depthwise_tile(const DepthwiseCall &call, int lane, int64_t x) {
  constexpr int64_t PIXEL = BLOCK * S::ELEMENT_BYTES;
  const int64_t stride = STRIDE ? STRIDE : call.stride;
  const Epilogue &e = *call.epilogue;
  const int channel = call.block * BLOCK + lane;
  typename F::Acc acc[P][1];
  const auto bias = F::load(static_cast<const float *>(e.bias) + channel);
  MOBILENET_UNROLL
  for (int p = 0; p < P; p++) acc[p][0] = bias;
  const float *weights = reinterpret_cast<const float *>(call.weights) + lane;
  const int64_t begin = x * stride * PIXEL + lane * S::ELEMENT_BYTES;
  for (int ky = 0; ky < call.kernel_height; ky++) {
    const char *a = call.rows[ky] + begin;
    for (int kx = 0; kx < call.kernel_width; kx++) {
      const auto w = F::load(weights);
      MOBILENET_UNROLL
      for (int p = 0; p < P; p++) F::fma(acc[p][0], S::load(a + p * stride * PIXEL), w);
      weights += BLOCK;
      a += call.dilation * PIXEL;
    }
  }
  activate_tile<F, P, 1>(acc, e.activation, e.alpha ? e.alpha + channel : nullptr);
  MOBILENET_UNROLL
  for (int p = 0; p < P; p++) S::store(call.out + (x + p) * PIXEL + lane * S::ELEMENT_BYTES, acc[p][0]);
}

// The same for kernels of a known WIDTH without dilation: each pixel of a row is loaded once for all that see it.
template <class F, class S, int P, int STRIDE, int WIDTH>
static inline __attribute__((always_inline)) void sliding_tile(const DepthwiseCall &call, int lane, int64_t x) {
  constexpr int64_t PIXEL = BLOCK * S::ELEMENT_BYTES;
  const Epilogue &e = *call.epilogue;
  const int channel = call.block * BLOCK + lane;
  typename F::Acc acc[P][1];
  const auto bias = F::load(static_cast<const float *>(e.bias) + channel);
  MOBILENET_UNROLL
  for (int p = 0; p < P; p++) acc[p][0] = bias;
  const float *weights = reinterpret_cast<const float *>(call.weights) + lane;
  const int64_t begin = x * STRIDE * PIXEL + lane * S::ELEMENT_BYTES;
  for (int ky = 0; ky < call.kernel_height; ky++) {
    const char *a = call.rows[ky] + begin;
    typename F::Acc w[WIDTH];
    MOBILENET_UNROLL
    for (int kx = 0; kx < WIDTH; kx++) w[kx] = F::load(weights + kx * BLOCK);
    MOBILENET_UNROLL
    for (int j = 0; j < (P - 1) * STRIDE + WIDTH; j++) {
      const auto pixel = S::load(a + j * PIXEL);
      MOBILENET_UNROLL
      for (int kx = 0; kx < WIDTH; kx++)
        if ((j - kx) % STRIDE == 0 && j >= kx && (j - kx) / STRIDE < P)
          F::fma(acc[(j - kx) / STRIDE][0], pixel, w[kx]);
    }
    weights += WIDTH * BLOCK;
  }
  activate_tile<F, P, 1>(acc, e.activation, e.alpha ? e.alpha + channel : nullptr);
  MOBILENET_UNROLL
  for (int p = 0; p < P; p++) S::store(call.out + (x + p) * PIXEL + lane * S::ELEMENT_BYTES, acc[p][0]);
}

template <class F, class S, int STRIDE, int WIDTH, int P>
static inline void any_tile(const DepthwiseCall &call, int lane, int64_t x) {
  if constexpr (WIDTH)
    sliding_tile<F, S, P, STRIDE, WIDTH>(call, lane, x);
  else
    depthwise_tile<F, S, P, STRIDE>(call, lane, x);
}

template <class F, class S, int STRIDE, int WIDTH, int P>
static void depthwise_tail(const DepthwiseCall &call, int lane, int64_t x, int64_t rest) {
  if constexpr (P > 0) {
    if (rest == P) return any_tile<F, S, STRIDE, WIDTH, P>(call, lane, x);
    depthwise_tail<F, S, STRIDE, WIDTH, P - 1>(call, lane, x, rest);
  }
}

// STRIDE 0 and WIDTH 0 mean any.
template <class F, class S, int STRIDE, int WIDTH>
static void depthwise_row(const DepthwiseCall &call, int lane) {
  constexpr int P = F::DEPTHWISE_PIXELS;
  int64_t x = 0;
  for (; x + P <= call.pixels; x += P) any_tile<F, S, STRIDE, WIDTH, P>(call, lane, x);
  depthwise_tail<F, S, STRIDE, WIDTH, P - 1>(call, lane, x, call.pixels - x);
}

template <class F, class S>
static void depthwise(const DepthwiseCall &call) {
  if constexpr (F::LANES == 16) {
    if (call.channels <= 8) return depthwise<typename F::Half, typename S::Half>(call);
  }
  const bool near = call.dilation == 1 && call.stride <= 2;
  for (int lane = 0; lane < call.channels; lane += F::LANES) {
    switch (near ? call.kernel_width * 2 + call.stride : 0) {
      case 3 * 2 + 1: depthwise_row<F, S, 1, 3>(call, lane); break;
      case 3 * 2 + 2: depthwise_row<F, S, 2, 3>(call, lane); break;
      case 5 * 2 + 1: depthwise_row<F, S, 1, 5>(call, lane); break;
      case 5 * 2 + 2: depthwise_row<F, S, 2, 5>(call, lane); break;
      default: depthwise_row<F, S, 0, 0>(call, lane);
    }
  }
}

static inline size_t depthwise_float_weights(int kernel_height, int kernel_width) {
  return size_t(kernel_height) * size_t(kernel_width) * BLOCK * sizeof(float);
}

static inline void pack_depthwise_float(const void *weights, int kernel_height, int kernel_width, char *packed) {
  __builtin_memcpy(packed, weights, depthwise_float_weights(kernel_height, kernel_width));
}

}  // namespace mobilenet::MOBILENET_ISA
