// Vectors of NEON: 4 floats, and the loop over words of tiles whose multiplications take one lane of a vector.
#pragma once
#include <arm_neon.h>

#include "../kernels.h"
#include "../kernels/unroll.h"

namespace mobilenet::MOBILENET_ISA {

struct Float4 {
  using Acc = float32x4_t;
  static constexpr int LANES = 4, DEPTHWISE_PIXELS = 8, REGISTERS = 32;
  static Acc zero() { return vdupq_n_f32(0); }
  static Acc set(float x) { return vdupq_n_f32(x); }
  static Acc load(const float *p) { return vld1q_f32(p); }
  static void store(float *p, Acc x) { vst1q_f32(p, x); }
  static Acc add(Acc a, Acc b) { return vaddq_f32(a, b); }
  static Acc sum(Acc a, Acc b) { return vaddq_f32(a, b); }
  static Acc mul(Acc a, Acc b) { return vmulq_f32(a, b); }
  static Acc min(Acc a, Acc b) { return vminq_f32(a, b); }
  static Acc max(Acc a, Acc b) { return vmaxq_f32(a, b); }
  static void fma(Acc &acc, Acc a, Acc b) { acc = vfmaq_f32(acc, a, b); }
};

struct StoreF32 {
  static constexpr int ELEMENT_BYTES = 4;
  static float32x4_t load(const char *p) { return vld1q_f32(reinterpret_cast<const float *>(p)); }
  static void store(char *p, float32x4_t x) { vst1q_f32(reinterpret_cast<float *>(p), x); }
};

// Word LANE of four that a tile has in registers. T: four(a), the words; mac_lane<LANE>(acc, weight, words).
template <class T, int LANE, int P, int NV, int PANEL>
static inline __attribute__((always_inline)) void multiply_lane(typename T::Acc (&acc)[P][NV],
                                                                const typename T::Four (&words)[P],
                                                                const char *weights) {
  constexpr int STEP = T::WORD_BYTES * T::LANES;
  MOBILENET_UNROLL
  for (int v = 0; v < NV; v++) {
    const auto w = T::load(weights + (LANE * PANEL + v) * STEP);
    MOBILENET_UNROLL
    for (int p = 0; p < P; p++) T::template mac_lane<LANE>(acc[p][v], w, words[p]);
  }
}

// The loop of gemm.h with one load for 4 words of a pixel. A run that is no multiple of 4 words ends within a
// pixel's 16 channels, so that what is read past it is there.
template <class T, int P, int NV, int PANEL>
static inline __attribute__((always_inline)) void multiply_fours(typename T::Acc (&acc)[P][NV],
                                                                 const GemmCall &call, const char *a,
                                                                 const char *weights) {
  constexpr int STEP = T::WORD_BYTES * T::LANES;
  for (const Run *run = call.runs, *end = run + call.run_count; run != end; run++) {
    const char *at = a + run->offset;
    for (int words = run->words; words > 0; words -= 4, at += 16) {
      typename T::Four four[P];
      MOBILENET_UNROLL
      for (int p = 0; p < P; p++) four[p] = T::four(at + p * T::PIXEL_BYTES);
      multiply_lane<T, 0, P, NV, PANEL>(acc, four, weights);
      if (words > 1) multiply_lane<T, 1, P, NV, PANEL>(acc, four, weights);
      if (words > 2) multiply_lane<T, 2, P, NV, PANEL>(acc, four, weights);
      if (words > 3) multiply_lane<T, 3, P, NV, PANEL>(acc, four, weights);
      weights += (words < 4 ? words : 4) * PANEL * STEP;
    }
  }
}

}  // namespace mobilenet::MOBILENET_ISA
