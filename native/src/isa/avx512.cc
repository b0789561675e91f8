// AVX-512 F, BW, DQ, VL: floats.
#define MOBILENET_ISA avx512
#include "isa.h"

#include "../kernels/depthwise.h"
#include "../kernels/elementwise.h"
#include "../kernels/gemm.h"
#include "../kernels/resample.h"
#include "avx512_vectors.h"

namespace mobilenet::MOBILENET_ISA {

struct GemmF32Half : Float8 {
  using Weight = __m256;
  static constexpr int MAX_PIXELS = 7, PIXEL_BYTES = 64, WORD_BYTES = 4;
  static Acc init(const void *bias, int channel) { return load(static_cast<const float *>(bias) + channel); }
  static Weight load(const char *weights) { return _mm256_loadu_ps(reinterpret_cast<const float *>(weights)); }
  using Float8::load;
  static const float *word(const char *a) { return reinterpret_cast<const float *>(a); }
  // As assembly, or compilers keep the broadcasts of a tile in registers and spill the sums.
  static void mac(Acc &acc, Weight w, const float *word) {
    asm("vfmadd231ps %2%{1to8%}, %1, %0" : "+v"(acc) : "v"(w), "m"(*word));
  }
  template <int P, int NV>
  static inline __attribute__((always_inline)) void finish(Acc (&acc)[P][NV], const GemmCall &call, int channel,
                                                           int64_t pixel) {
    finish_float<Float8, StoreF32Half, P, NV>(acc, call, channel, pixel);
  }
};

struct GemmF32 : Float16 {
  using Half = GemmF32Half;
  using Weight = __m512;
  static constexpr int MAX_PIXELS = 7, PIXEL_BYTES = 64, WORD_BYTES = 4;
  static Acc init(const void *bias, int channel) { return load(static_cast<const float *>(bias) + channel); }
  static Weight load(const char *weights) { return _mm512_loadu_ps(weights); }
  using Float16::load;
  static const float *word(const char *a) { return reinterpret_cast<const float *>(a); }
  static void mac(Acc &acc, Weight w, const float *word) {
    asm("vfmadd231ps %2%{1to16%}, %1, %0" : "+v"(acc) : "v"(w), "m"(*word));
  }
  template <int P, int NV>
  static inline __attribute__((always_inline)) void finish(Acc (&acc)[P][NV], const GemmCall &call, int channel,
                                                           int64_t pixel) {
    finish_float<Float16, StoreF32, P, NV>(acc, call, channel, pixel);
  }
};

void add_float(Kernels &kernels) {
  constexpr int f32 = int(Element::f32);
  kernels.has[f32] = true;
  kernels.pictures = &picture_kernels;
  kernels.gemm[f32] = gemm<GemmF32>;
  kernels.gemv[f32] = gemv<GemmF32>;
  add_float_elementwise<Float16, StoreF32>(kernels, Element::f32);
  kernels.depthwise[f32] = depthwise<Float16, StoreF32>;
  kernels.depthwise_weights[f32] = depthwise_float_weights;
  kernels.pack_depthwise[f32] = pack_depthwise_float;
  kernels.word_bytes[f32] = 4;
  kernels.tile_pixels[f32] = GemmF32::MAX_PIXELS;
  kernels.panel[f32] = 32;
}

}  // namespace mobilenet::MOBILENET_ISA
