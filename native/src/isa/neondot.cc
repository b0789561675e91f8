// NEON with dot products of int8 (ARMv8.2 and later): integers.
#define MOBILENET_ISA neondot
#include "isa.h"

#include "../kernels/elementwise.h"
#include "../kernels/gemm.h"
#include "neon_integer.h"

namespace mobilenet::MOBILENET_ISA {

struct GemmU8 {
  using Acc = int32x4_t;
  using Weight = int8x16_t;
  using Four = int8x16_t;
  static constexpr int LANES = 4, MAX_PIXELS = 4, PIXEL_BYTES = 16, WORD_BYTES = 4;
  static Acc zero() { return vdupq_n_s32(0); }
  static Acc sum(Acc a, Acc b) { return vaddq_s32(a, b); }
  static Acc init(const void *bias, int channel) {
    return vld1q_s32(static_cast<const int32_t *>(bias) + channel);
  }
  static Weight load(const char *weights) { return vld1q_s8(reinterpret_cast<const int8_t *>(weights)); }
  static int8x16_t word(const char *a) { return centred_word(a); }
  static void mac(Acc &acc, Weight w, int8x16_t word) { acc = vdotq_s32(acc, w, word); }
  static Four four(const char *a) { return centred(a); }
  template <int LANE>
  static void mac_lane(Acc &acc, Weight w, Four words) {
    acc = vdotq_laneq_s32(acc, w, words, LANE);
  }
  template <int P, int NV, int PANEL>
  static inline __attribute__((always_inline)) void multiply(Acc (&acc)[P][NV], const GemmCall &call,
                                                             const char *a, const char *weights) {
    multiply_fours<GemmU8, P, NV, PANEL>(acc, call, a, weights);
  }
  template <int P, int NV>
  static inline __attribute__((always_inline)) void finish(Acc (&acc)[P][NV], const GemmCall &call, int channel,
                                                           int64_t pixel) {
    finish_integer<P, NV>(acc, call, channel, pixel);
  }
};

static void pack_word(const int8_t weights[4], char *packed) { __builtin_memcpy(packed, weights, 4); }

void add_integer(Kernels &kernels) {
  constexpr int u8 = int(Element::u8);
  kernels.has[u8] = true;
  kernels.gemm[u8] = gemm<GemmU8>;
  kernels.gemv[u8] = gemv<GemmU8>;
  add_integer_elementwise(kernels);
  kernels.depthwise[u8] = each_row<depthwise_integer, 1>;
  kernels.depthwise_weights[u8] = depthwise_integer_weights;
  kernels.pack_depthwise[u8] = pack_depthwise_integer;
  kernels.panel[u8] = 16;
  kernels.word_bytes[u8] = 4;
  kernels.tile_pixels[u8] = GemmU8::MAX_PIXELS;
  kernels.pack_word = pack_word;
  kernels.input_offset = INPUT_OFFSET;
  kernels.pixels_over_read[u8] = 0;
}

}  // namespace mobilenet::MOBILENET_ISA
