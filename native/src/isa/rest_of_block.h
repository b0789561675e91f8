// Vectors of fewer than 16 floats leave the last block's rest unwritten, where another picture's numbers, or what
// is none, may lie. It is set to zero.
#pragma once

#include "../kernels.h"
#include "../kernels/depthwise.h"

namespace mobilenet::MOBILENET_ISA {

// Channels first .. 15 of a block, first a multiple of 4.
static inline void clear_rest(char *block, int64_t pixel, int64_t pixels, int first) {
  for (int64_t p = pixel; p < pixel + pixels; p++)
    for (int c = first; c < BLOCK; c += 4) __builtin_memset(block + (p * BLOCK + c) * 4, 0, 16);
}

template <class F, class S>
static void depthwise_whole(const DepthwiseCall &call) {
  depthwise<F, S>(call);
  const int written = (call.channels + F::LANES - 1) / F::LANES * F::LANES;
  if (written < BLOCK) clear_rest(call.out, 0, call.output_rows * call.pixels, written);
}

}  // namespace mobilenet::MOBILENET_ISA
