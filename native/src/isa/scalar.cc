// What every processor can run: vectors of four lanes, left to the compiler.
#define MOBILENET_ISA scalar
#include "isa.h"

#include "../kernels/depthwise.h"
#include "../kernels/elementwise.h"
#include "../kernels/gemm.h"
#include "../kernels/integer.h"
#include "portable_vectors.h"
#include "rest_of_block.h"

namespace mobilenet::MOBILENET_ISA {

struct GemmF32 : Float4 {
  using Weight = Floats4;
  static constexpr int MAX_PIXELS = 2, PIXEL_BYTES = 64, WORD_BYTES = 4;
  static Acc init(const void *bias, int channel) { return load(static_cast<const float *>(bias) + channel); }
  static Weight load(const char *weights) { return read<Weight>(weights); }
  using Float4::load;
  static Acc word(const char *a) { return set(read<float>(a)); }
  static void mac(Acc &acc, Weight w, Acc word) { acc += w * word; }
  template <int P, int NV>
  static inline __attribute__((always_inline)) void finish(Acc (&acc)[P][NV], const GemmCall &call, int channel,
                                                           int64_t pixel) {
    finish_float<Float4, StoreF32, P, NV>(acc, call, channel, pixel);
    if constexpr (NV == 2) clear_rest(call.out + (channel / BLOCK) * call.out_block, pixel, P, 8);
  }
};

// A vector holds two channels, two sums each: of words' first and second pair of inputs.
struct GemmU8 {
  using Acc = Ints4;
  using Weight = Shorts8;
  static constexpr int LANES = 2, MAX_PIXELS = 1, PIXEL_BYTES = 16, WORD_BYTES = 8;
  static Acc init(const void *bias, int channel) {
    const int32_t *at = static_cast<const int32_t *>(bias) + channel;
    return Acc{at[0], 0, at[1], 0};
  }
  static Acc zero() { return Acc{}; }
  static Acc sum(Acc a, Acc b) { return a + b; }
  static Weight load(const char *p) { return read<Weight>(p); }
  static Shorts8 word(const char *a) {
    const uint32_t four = read<uint32_t>(a);
    const uint64_t wide = (four & 0xff) | uint64_t(four >> 8 & 0xff) << 16 | uint64_t(four >> 16 & 0xff) << 32 |
                          uint64_t(four >> 24) << 48;
    typedef uint64_t Twice __attribute__((vector_size(16)));
    return (Shorts8)Twice{wide, wide};
  }
  static void mac(Acc &acc, Weight w, Shorts8 word) { acc += dot_pairs(word, w); }
  template <int P, int NV>
  static inline __attribute__((always_inline)) void finish(Acc (&acc)[P][NV], const GemmCall &call, int channel,
                                                           int64_t pixel) {
    Ints4 sums[P][4] = {};
    MOBILENET_UNROLL
    for (int p = 0; p < P; p++)
      MOBILENET_UNROLL
      for (int v = 0; v < NV; v += 2) {
        const Ints4 a = acc[p][v], b = acc[p][v + 1];
        sums[p][v / 2] = __builtin_shufflevector(a, b, 0, 2, 4, 6) + __builtin_shufflevector(a, b, 1, 3, 5, 7);
      }
    finish_integer<Int4, Table, P>(sums, call, channel, pixel);
  }
};

static void pack_word(const int8_t weights[4], char *packed) {
  const int16_t wide[4] = {weights[0], weights[1], weights[2], weights[3]};
  __builtin_memcpy(packed, wide, sizeof wide);
}

void add_float(Kernels &kernels) {
  constexpr int f32 = int(Element::f32);
  kernels.has[f32] = true;
  kernels.gemm[f32] = gemm<GemmF32>;
  kernels.gemv[f32] = gemv<GemmF32>;
  add_float_elementwise<Float4, StoreF32>(kernels, Element::f32);
  kernels.depthwise[f32] = depthwise_whole<Float4, StoreF32>;
  kernels.depthwise_weights[f32] = depthwise_float_weights;
  kernels.pack_depthwise[f32] = pack_depthwise_float;
  kernels.word_bytes[f32] = GemmF32::WORD_BYTES;
  kernels.tile_pixels[f32] = GemmF32::MAX_PIXELS;
  kernels.panel[f32] = 16;
}

void add_integer(Kernels &kernels) {
  constexpr int u8 = int(Element::u8);
  kernels.has[u8] = true;
  kernels.gemm[u8] = gemm<GemmU8>;
  kernels.gemv[u8] = gemm<GemmU8>;  // gemv's second sums would not fit into 16 registers
  add_integer_elementwise(kernels);
  add_depthwise_integer<Int4, Table>(kernels);
  kernels.word_bytes[u8] = GemmU8::WORD_BYTES;
  kernels.tile_pixels[u8] = GemmU8::MAX_PIXELS;
  kernels.panel[u8] = 16;
  kernels.pack_word = pack_word;
  kernels.input_offset = 0;
}

}  // namespace mobilenet::MOBILENET_ISA
