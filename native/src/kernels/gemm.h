// Products of a matrix of pixels with packed weights, for every instruction set and precision.
//
// The isa file declares, in namespace MOBILENET_ISA, a struct T per precision with
//   Acc, Weight, LANES (16, 8 or 4 channels in a vector), MAX_PIXELS (of a tile)
//   WORD_BYTES (of a weight vector's lane for one word of 4 input bytes: 4, or 8 where int8 is widened)
//   init(bias, channel), load(weights), word(a): what a multiply needs of 4 input bytes, mac(acc, weight, word)
//   zero(), sum(acc, acc), finish<P, NV>(acc, call, channel, pixel)
// and may declare
//   Half: for a panel of 8 channels, if LANES is 16 or if that takes another tile
//   multiply<P, NV, PANEL>(acc, call, a, weights): the loop over words, where another than the plain one is better
//   HALVES: a panel of 16 channels is worked on as two halves, with the tile of a panel of 8
//   many_pixels<NV>(call, channel): all pixels for a panel, where tiles of MAX_PIXELS are not the best way
#pragma once

#include "../kernels.h"
#include "unroll.h"

namespace mobilenet::MOBILENET_ISA {

// The loop over words for P pixels x NV vectors of channels, of a panel of PANEL vectors. It is the hot loop of
// the whole engine: its P * NV sums must stay in registers (tests/native/test_spills.py counts).
template <class T, int P, int NV, int PANEL>
static inline __attribute__((always_inline)) void multiply(typename T::Acc (&acc)[P][NV], const GemmCall &call,
                                                           const char *a, const char *weights) {
  constexpr int PIXEL_BYTES = T::PIXEL_BYTES, STEP = T::WORD_BYTES * T::LANES;
  const Run *run = call.runs, *end = run + call.run_count;
  for (; run != end; run++) {
    const char *at = a + run->offset;
    int words = run->words;
    do {
      typename T::Weight w[NV];
      MOBILENET_UNROLL
      for (int v = 0; v < NV; v++) w[v] = T::load(weights + v * STEP);
      MOBILENET_UNROLL
      for (int p = 0; p < P; p++) {
        const auto word = T::word(at + p * PIXEL_BYTES);
        MOBILENET_UNROLL
        for (int v = 0; v < NV; v++) T::mac(acc[p][v], w[v], word);
      }
      at += 4;
      weights += PANEL * STEP;
    } while (--words);
  }
}

template <class T, int P, int NV, int PANEL>
static inline __attribute__((always_inline)) void tile(const GemmCall &call, const char *a, const char *weights,
                                                       int channel, int64_t pixel) {
  typename T::Acc acc[P][NV];
  MOBILENET_UNROLL
  for (int v = 0; v < NV; v++) {
    const auto bias = T::init(call.epilogue->bias, channel + v * T::LANES);
    MOBILENET_UNROLL
    for (int p = 0; p < P; p++) acc[p][v] = bias;
  }
  if constexpr (requires { T::template multiply<P, NV, PANEL>(acc, call, a, weights); })
    T::template multiply<P, NV, PANEL>(acc, call, a, weights);
  else
    multiply<T, P, NV, PANEL>(acc, call, a, weights);
  T::template finish<P, NV>(acc, call, channel, pixel);
}

template <class T, int NV, int PANEL, int P>
static void tail(const GemmCall &call, const char *a, const char *weights, int channel, int64_t pixel,
                 int64_t rest) {
  if constexpr (P > 0) {
    if (rest == P) return tile<T, P, NV, PANEL>(call, a, weights, channel, pixel);
    tail<T, NV, PANEL, P - 1>(call, a, weights, channel, pixel, rest);
  }
}

// One row: tiles of P pixels, then the rest.
template <class T, int NV, int PANEL, int P>
static inline void row_of_tiles(const GemmCall &row, const char *weights, int channel) {
  const char *a = row.a;
  int64_t pixel = 0;
  for (; pixel + P <= row.pixels; pixel += P) {
    tile<T, P, NV, PANEL>(row, a, weights, channel, pixel);
    a += P * T::PIXEL_BYTES;
  }
  tail<T, NV, PANEL, P - 1>(row, a, weights, channel, pixel, row.pixels - pixel);
}

// All pixels for NV vectors of channels, those from `part` on, of the panel of PANEL vectors that begins at
// `channel`.
template <class T, int NV, int PANEL = NV>
static void panel(const GemmCall &call, int channel, int part = 0) {
  const char *weights = call.weights + (int64_t(channel) * call.words + part) * T::WORD_BYTES;
  GemmCall row = call;
  for (int64_t y = 0; y < call.rows; y++) {
    row_of_tiles<T, NV, PANEL, T::MAX_PIXELS>(row, weights, channel + part);
    row.a += call.a_row, row.out += call.out_row, row.residual += call.out_row;
  }
}

// A single pixel: what counts is how fast the weights come. Two sums for each channel, of even and odd words, and
// a prefetch, hide the time of the additions and of the memory.
template <class T, int NV>
static void dense_panel(const GemmCall &call, int channel) {
  constexpr int STEP = T::WORD_BYTES * T::LANES, AHEAD = 14 * 1024;
  const char *weights = call.weights + int64_t(channel) * call.words * T::WORD_BYTES;
  typename T::Acc even[1][NV], odd[NV];
  MOBILENET_UNROLL
  for (int v = 0; v < NV; v++) {
    even[0][v] = T::init(call.epilogue->bias, channel + v * T::LANES);
    odd[v] = T::zero();
  }
  for (const Run *run = call.runs, *end = run + call.run_count; run != end; run++) {
    const char *at = call.a + run->offset;
    int words = run->words;
    for (; words >= 2; words -= 2) {
      const auto first = T::word(at), second = T::word(at + 4);
      MOBILENET_UNROLL
      for (int v = 0; v < NV; v++) {
        T::mac(even[0][v], T::load(weights + v * STEP), first);
        T::mac(odd[v], T::load(weights + (NV + v) * STEP), second);
        __builtin_prefetch(weights + AHEAD + v * STEP);
        __builtin_prefetch(weights + AHEAD + (NV + v) * STEP);
      }
      at += 8;
      weights += 2 * NV * STEP;
    }
    if (words) {
      const auto last = T::word(at);
      MOBILENET_UNROLL
      for (int v = 0; v < NV; v++) T::mac(even[0][v], T::load(weights + v * STEP), last);
      weights += NV * STEP;
    }
  }
  MOBILENET_UNROLL
  for (int v = 0; v < NV; v++) even[0][v] = T::sum(even[0][v], odd[v]);
  T::template finish<1, NV>(even, call, channel, 0);
}

template <class T, int NV>
struct ManyPixels {
  static void run(const GemmCall &call, int channel) {
    if constexpr (requires { T::template many_pixels<NV>(call, channel); }) {
      T::template many_pixels<NV>(call, channel);
    } else if constexpr (requires { T::HALVES; } && NV * T::LANES == 16) {
      panel<T, NV / 2, NV>(call, channel);
      panel<T, NV / 2, NV>(call, channel, 8);
    } else {
      panel<T, NV>(call, channel);
    }
  }
};
template <class T, int NV>
struct OnePixel {
  static void run(const GemmCall &call, int channel) { dense_panel<T, NV>(call, channel); }
};

// Panels are as wide as layers.cc packs them: 32 (of instruction sets with 16 lanes), 16 or 8 channels.
template <class T, template <class, int> class Panel>
static void all_panels(const GemmCall &call) {
  int channel = call.first;
  while (channel < call.last) {
    const int rest = call.last - channel;
    if constexpr (T::LANES == 16) {
      if (rest > 24) {
        Panel<T, 2>::run(call, channel);
        channel += 32;
        continue;
      }
    }
    if (rest > 8) {
      Panel<T, 16 / T::LANES>::run(call, channel);
      channel += 16;
    } else {
      if constexpr (requires { typename T::Half; })
        Panel<typename T::Half, 8 / T::Half::LANES>::run(call, channel);
      else
        Panel<T, 8 / T::LANES>::run(call, channel);
      channel += 8;
    }
  }
}

template <class T>
static void gemm(const GemmCall &call) {
  all_panels<T, ManyPixels>(call);
}

template <class T>
static void gemv(const GemmCall &call) {
  all_panels<T, OnePixel>(call);
}

}  // namespace mobilenet::MOBILENET_ISA
