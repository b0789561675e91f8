// Matrix products of floats, and the table's entries for floats, for both builds of WebAssembly.
#pragma once
#include "../kernels/depthwise.h"
#include "../kernels/elementwise.h"
#include "../kernels/gemm.h"
#include "wasm_vectors.h"

namespace mobilenet::MOBILENET_ISA {

template <int PIXELS>
struct GemmF32Tile : Float4 {
  using Weight = v128_t;
  static constexpr int MAX_PIXELS = PIXELS, PIXEL_BYTES = 64, WORD_BYTES = 4;
  static Acc init(const void *bias, int channel) {
    return wasm_v128_load(static_cast<const float *>(bias) + channel);
  }
  static Weight load(const char *weights) { return wasm_v128_load(weights); }
  static v128_t word(const char *a) { return wasm_v128_load32_splat(a); }
  static void mac(Acc &acc, Weight w, v128_t word) { fma(acc, w, word); }
  template <int P, int NV>
  static inline __attribute__((always_inline)) void finish(Acc (&acc)[P][NV], const GemmCall &call, int channel,
                                                           int64_t pixel) {
    finish_float<Float4, StoreF32, P, NV>(acc, call, channel, pixel);
  }
};

// Eight sums either way: more leave no registers for products.
struct GemmF32 : GemmF32Tile<2> {
  using Half = GemmF32Tile<4>;
};

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

}  // namespace mobilenet::MOBILENET_ISA
