// Depthwise convolution of rows of one block, for floats: any kernel, stride and dilation.
//
// The isa file declares F (vectors of floats: as for finish_float.h, fma(acc, a, b), and how many REGISTERS there
// are) and S (how an element is kept). The weights are floats, [kernel_height][kernel_width][16].
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

// SIZE x SIZE, 3 or 5, where there are registers for the weights of a row, for 3 x 3 those of all, beside the
// sums.
template <class F, class S, int SIZE, int STRIDE>
class DepthwiseSquare {
 public:
  DepthwiseSquare(const DepthwiseCall &call, int lane)
      : call_(call), lane_(lane), alpha_(call.epilogue->alpha ? call.epilogue->alpha + channel() : nullptr),
        bias_(F::load(static_cast<const float *>(call.epilogue->bias) + channel())),
        weights_(reinterpret_cast<const float *>(call.weights) + lane) {
    MOBILENET_UNROLL
    for (int i = 0; i < KEPT; i++) kept_[i] = F::load(weights_ + i * BLOCK);
  }
  void row(const char *const *rows, char *out) const {
    const char *from[SIZE];
    MOBILENET_UNROLL
    for (int ky = 0; ky < SIZE; ky++) from[ky] = rows[ky] + lane_ * S::ELEMENT_BYTES;
    out += lane_ * S::ELEMENT_BYTES;
    int64_t x = 0;
    for (; x + P <= call_.pixels; x += P) tile<P>(from, x, out);
    tail<P - 1>(from, x, out);
  }

 private:
  static constexpr int P = 7, KEPT = SIZE == 3 ? 9 : 0;
  int channel() const { return call_.block * BLOCK + lane_; }

  template <int COUNT>
  inline __attribute__((always_inline)) void tile(const char *const (&rows)[SIZE], int64_t x, char *out) const {
    constexpr int64_t PIXEL = BLOCK * S::ELEMENT_BYTES;
    typename F::Acc acc[COUNT][1];
    MOBILENET_UNROLL
    for (int p = 0; p < COUNT; p++) acc[p][0] = bias_;
    MOBILENET_UNROLL
    for (int ky = 0; ky < SIZE; ky++) {
      const char *a = rows[ky] + x * STRIDE * PIXEL;
      typename F::Acc w[SIZE];
      MOBILENET_UNROLL
      for (int kx = 0; kx < SIZE; kx++)
        w[kx] = KEPT ? kept_[ky * SIZE + kx] : F::load(weights_ + (ky * SIZE + kx) * BLOCK);
      MOBILENET_UNROLL
      for (int j = 0; j < (COUNT - 1) * STRIDE + SIZE; j++) {
        const auto pixel = S::load(a + j * PIXEL);
        MOBILENET_UNROLL
        for (int kx = 0; kx < SIZE; kx++)
          if ((j - kx) % STRIDE == 0 && j >= kx && (j - kx) / STRIDE < COUNT)
            F::fma(acc[(j - kx) / STRIDE][0], pixel, w[kx]);
      }
    }
    activate_tile<F, COUNT, 1>(acc, call_.epilogue->activation, alpha_);
    MOBILENET_UNROLL
    for (int p = 0; p < COUNT; p++) S::store(out + (x + p) * PIXEL, acc[p][0]);
  }
  template <int COUNT>
  inline void tail(const char *const (&rows)[SIZE], int64_t x, char *out) const {
    if constexpr (COUNT > 0) {
      if (call_.pixels - x == COUNT) return tile<COUNT>(rows, x, out);
      tail<COUNT - 1>(rows, x, out);
    }
  }

  const DepthwiseCall &call_;
  const int lane_;
  const float *const alpha_;
  const typename F::Acc bias_;
  const float *const weights_;
  typename F::Acc kept_[KEPT ? KEPT : 1];
};

template <class F, class S, int SIZE, int STRIDE>
static void depthwise_square(const DepthwiseCall &call) {
  for (int lane = 0; lane < call.channels; lane += F::LANES) {
    const DepthwiseSquare<F, S, SIZE, STRIDE> kernel(call, lane);
    for (int64_t y = 0; y < call.output_rows; y++)
      kernel.row(call.rows + y * call.row_step, call.out + y * call.pixels * BLOCK * S::ELEMENT_BYTES);
  }
}

template <class F, class S>
static void depthwise_one_row(const DepthwiseCall &call) {
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

template <class F, class S>
static void depthwise(const DepthwiseCall &call) {
  if constexpr (F::LANES == 16) {
    if (call.channels <= 8) return depthwise<typename F::Half, typename S::Half>(call);
  }
  if constexpr (F::REGISTERS == 32) {
    const bool near = call.dilation == 1 && call.kernel_height == call.kernel_width;
    switch (near ? call.kernel_width * 4 + call.stride : 0) {
      case 3 * 4 + 1: return depthwise_square<F, S, 3, 1>(call);
      case 3 * 4 + 2: return depthwise_square<F, S, 3, 2>(call);
      case 5 * 4 + 1: return depthwise_square<F, S, 5, 1>(call);
      case 5 * 4 + 2: return depthwise_square<F, S, 5, 2>(call);
    }
  }
  each_row<depthwise_one_row<F, S>, S::ELEMENT_BYTES>(call);
}

static inline size_t depthwise_float_weights(int kernel_height, int kernel_width) {
  return size_t(kernel_height) * size_t(kernel_width) * BLOCK * sizeof(float);
}

static inline void pack_depthwise_float(const void *weights, int kernel_height, int kernel_width, char *packed) {
  __builtin_memcpy(packed, weights, depthwise_float_weights(kernel_height, kernel_width));
}

}  // namespace mobilenet::MOBILENET_ISA
