// What becomes of float sums: activation, residual, store as float or bfloat16.
#pragma once

#include "../generic.h"
#include "../kernels.h"
#include "unroll.h"

namespace mobilenet::MOBILENET_ISA {

template <class F>
static __attribute__((noinline)) typename F::Acc activate_lanes(typename F::Acc x, int activation) {
  float lanes[F::LANES];
  F::store(lanes, x);
  for (float &lane : lanes) lane = activate(Activation(activation), lane);
  return F::load(lanes);
}

// F: vectors of floats (Acc, LANES, set, min, max, add, mul, load, store); one tile's sums in place. Every loop
// over them must be unrolled: one that is not would move all of them to memory, in the matrix kernels too.
template <class F, int P, int NV>
static inline __attribute__((always_inline)) void activate_tile(typename F::Acc (&acc)[P][NV], int activation,
                                                                const float *alpha) {
  using Vector = typename F::Acc;
  switch (Activation(activation)) {
    case Activation::none: return;
    case Activation::relu: {
      const Vector zero = F::set(0);
      MOBILENET_UNROLL
      for (int p = 0; p < P; p++)
        MOBILENET_UNROLL
        for (int v = 0; v < NV; v++) acc[p][v] = F::max(acc[p][v], zero);
      return;
    }
    case Activation::relu6: {
      const Vector zero = F::set(0), six = F::set(6);
      MOBILENET_UNROLL
      for (int p = 0; p < P; p++)
        MOBILENET_UNROLL
        for (int v = 0; v < NV; v++) acc[p][v] = F::min(F::max(acc[p][v], zero), six);
      return;
    }
    case Activation::hard_swish: {  // x * relu6(x + 3) / 6, with the division in the constants
      const Vector zero = F::set(0), one = F::set(1), sixth = F::set(1.0f / 6), half = F::set(0.5f);
      MOBILENET_UNROLL
      for (int p = 0; p < P; p++)
        MOBILENET_UNROLL
        for (int v = 0; v < NV; v++) {
          const Vector gate = F::min(F::max(F::add(F::mul(acc[p][v], sixth), half), zero), one);
          acc[p][v] = F::mul(acc[p][v], gate);
        }
      return;
    }
    case Activation::prelu: {
      const Vector zero = F::set(0);
      MOBILENET_UNROLL
      for (int v = 0; v < NV; v++) {
        const Vector slope = F::load(alpha + v * F::LANES);
        MOBILENET_UNROLL
        for (int p = 0; p < P; p++)
          acc[p][v] = F::add(F::max(acc[p][v], zero), F::mul(F::min(acc[p][v], zero), slope));
      }
      return;
    }
    default:  // gates and the like: few values
      MOBILENET_UNROLL
      for (int p = 0; p < P; p++)
        MOBILENET_UNROLL
        for (int v = 0; v < NV; v++) acc[p][v] = activate_lanes<F>(acc[p][v], activation);
  }
}

// S: how an element is kept (ELEMENT_BYTES, load and store of F's vectors).
template <class F, class S, int P, int NV>
static inline __attribute__((always_inline)) void finish_float(typename F::Acc (&acc)[P][NV], const GemmCall &call,
                                                               int channel, int64_t pixel) {
  const Epilogue &e = *call.epilogue;
  activate_tile<F, P, NV>(acc, e.activation, e.alpha ? e.alpha + channel : nullptr);
  MOBILENET_UNROLL
  for (int v = 0; v < NV; v++) {
    const int c = channel + v * F::LANES;
    const int64_t place = (pixel * BLOCK + c % BLOCK) * S::ELEMENT_BYTES;
    if (e.residual) {
      const char *other = call.residual + (c / BLOCK) * call.residual_block + place;
      MOBILENET_UNROLL
      for (int p = 0; p < P; p++) acc[p][v] = F::add(acc[p][v], S::load(other + p * BLOCK * S::ELEMENT_BYTES));
    }
  }
  if (e.residual) activate_tile<F, P, NV>(acc, e.activation_after, e.alpha ? e.alpha + channel : nullptr);
  MOBILENET_UNROLL
  for (int v = 0; v < NV; v++) {
    const int c = channel + v * F::LANES;
    char *out = call.out + (c / BLOCK) * call.out_block + (pixel * BLOCK + c % BLOCK) * S::ELEMENT_BYTES;
    MOBILENET_UNROLL
    for (int p = 0; p < P; p++) S::store(out + p * BLOCK * S::ELEMENT_BYTES, acc[p][v]);
  }
}

}  // namespace mobilenet::MOBILENET_ISA
