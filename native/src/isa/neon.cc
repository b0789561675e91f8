// NEON of every arm64 processor: floats, and integers without dot products.
#define MOBILENET_ISA neon
#include "isa.h"

#include "../kernels/depthwise.h"
#include "../kernels/elementwise.h"
#include "../kernels/gemm.h"
#include "neon_integer.h"

namespace mobilenet::MOBILENET_ISA {

struct GemmF32 : Float4 {
  using Weight = float32x4_t;
  using Four = float32x4_t;
  static constexpr int MAX_PIXELS = 5, PIXEL_BYTES = 64, WORD_BYTES = 4;  // 20 sums, 5 inputs, a weight or two
  static Acc init(const void *bias, int channel) { return vld1q_f32(static_cast<const float *>(bias) + channel); }
  static Weight load(const char *weights) { return vld1q_f32(reinterpret_cast<const float *>(weights)); }
  static float word(const char *a) { return *reinterpret_cast<const float *>(a); }
  static void mac(Acc &acc, Weight w, float word) { acc = vfmaq_n_f32(acc, w, word); }
  static Four four(const char *a) { return vld1q_f32(reinterpret_cast<const float *>(a)); }
  template <int LANE>
  static void mac_lane(Acc &acc, Weight w, Four words) {
    acc = vfmaq_laneq_f32(acc, w, words, LANE);
  }
  template <int P, int NV, int PANEL>
  static inline __attribute__((always_inline)) void multiply(Acc (&acc)[P][NV], const GemmCall &call,
                                                             const char *a, const char *weights) {
    multiply_fours<GemmF32, P, NV, PANEL>(acc, call, a, weights);
  }
  template <int P, int NV>
  static inline __attribute__((always_inline)) void finish(Acc (&acc)[P][NV], const GemmCall &call, int channel,
                                                           int64_t pixel) {
    finish_float<Float4, StoreF32, P, NV>(acc, call, channel, pixel);
  }
};

// 2 channels in a vector, the sums of each split in two: the products of a word, int16, are added in pairs. (Two
// products of int8 may pass int16 together; one never does.)
struct GemmU8 {
  using Acc = int32x4_t;
  using Weight = int8x8_t;
  static constexpr int LANES = 2, MAX_PIXELS = 4, PIXEL_BYTES = 16, WORD_BYTES = 4;
  static constexpr bool HALVES = true;
  static Acc init(const void *bias, int channel) {
    return vreinterpretq_s32_u64(vmovl_u32(vld1_u32(static_cast<const uint32_t *>(bias) + channel)));
  }
  static Weight load(const char *weights) { return vld1_s8(reinterpret_cast<const int8_t *>(weights)); }
  static int8x8_t word(const char *a) { return vget_low_s8(centred_word(a)); }
  static void mac(Acc &acc, Weight w, int8x8_t word) { acc = vpadalq_s16(acc, vmull_s8(w, word)); }
  template <int P, int NV>
  static inline __attribute__((always_inline)) void finish(Acc (&acc)[P][NV], const GemmCall &call, int channel,
                                                           int64_t pixel) {
    int32x4_t sums[P][NV / 2];
    MOBILENET_UNROLL
    for (int p = 0; p < P; p++)
      MOBILENET_UNROLL
      for (int v = 0; v < NV / 2; v++) sums[p][v] = vpaddq_s32(acc[p][2 * v], acc[p][2 * v + 1]);
    finish_integer<P, NV / 2>(sums, call, channel, pixel);
  }
};

static void pack_word(const int8_t weights[4], char *packed) { __builtin_memcpy(packed, weights, 4); }

void add_float(Kernels &kernels) {
  constexpr int f32 = int(Element::f32);
  kernels.has[f32] = true;
  kernels.gemm[f32] = gemm<GemmF32>;
  kernels.gemv[f32] = gemv<GemmF32>;
  add_float_elementwise<Float4, StoreF32>(kernels, Element::f32);
  kernels.depthwise[f32] = depthwise<Float4, StoreF32>;
  kernels.depthwise_weights[f32] = depthwise_float_weights;
  kernels.pack_depthwise[f32] = pack_depthwise_float;
  kernels.word_bytes[f32] = 4;
  kernels.tile_pixels[f32] = GemmF32::MAX_PIXELS;
  kernels.panel[f32] = 16;
}

void add_integer(Kernels &kernels) {
  constexpr int u8 = int(Element::u8);
  kernels.has[u8] = true;
  kernels.gemm[u8] = gemm<GemmU8>;
  kernels.gemv[u8] = gemm<GemmU8>;  // whose tile has sums enough even for one pixel
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
