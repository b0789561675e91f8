// WebAssembly with 128-bit vectors: floats without a fused multiply-add, and integers by the dot product of pairs
// of int16. Tiles are made for 15 vector registers, what an engine on x86 has left of 16.
#define MOBILENET_ISA wasm
#include "isa.h"

#include "wasm_gemm_float.h"
#include "wasm_vectors.h"

namespace mobilenet::MOBILENET_ISA {

// 2 channels in a vector, the sums of each split in two: a word of 4 inputs, widened, meets 2 x 4 weights.
struct GemmU8 {
  using Acc = v128_t;
  using Weight = v128_t;
  static constexpr int LANES = 2, MAX_PIXELS = 2, PIXEL_BYTES = 16, WORD_BYTES = 8;
  static constexpr bool HALVES = true;
  static Acc init(const void *bias, int channel) {
    return wasm_u64x2_load32x2(static_cast<const int32_t *>(bias) + channel);
  }
  static Weight load(const char *weights) { return wasm_v128_load(weights); }
  static v128_t word(const char *a) { return wasm_u16x8_extend_low_u8x16(wasm_v128_load32_splat(a)); }
  static void mac(Acc &acc, Weight w, v128_t word) { acc = wasm_i32x4_add(acc, wasm_i32x4_dot_i16x8(w, word)); }

  // The two sums of each of 4 channels.
  static v128_t together(v128_t a, v128_t b) {
    return wasm_i32x4_add(wasm_i32x4_shuffle(a, b, 0, 2, 4, 6), wasm_i32x4_shuffle(a, b, 1, 3, 5, 7));
  }

  // 8 channels of two pixels at a time, or of one.
  template <int P, int NV>
  static inline __attribute__((always_inline)) void finish(Acc (&acc)[P][NV], const GemmCall &call, int channel,
                                                           int64_t pixel) {
    static_assert(NV == 4);
    const Epilogue &e = *call.epilogue;
    const Requantise requantise(e.low, e.high, e.zero);
    const v128_t scale[2] = {wasm_v128_load(e.scale + channel), wasm_v128_load(e.scale + channel + 4)};
    const int64_t part = channel % BLOCK + pixel * BLOCK;
    char *out = call.out + channel / BLOCK * call.out_block + part;
    const char *other = e.residual ? call.residual + channel / BLOCK * call.residual_block + part : nullptr;
    MOBILENET_UNROLL
    for (int p = 0; p < P; p += 2) {
      v128_t quanta[4];
      MOBILENET_UNROLL
      for (int i = 0; i < 4; i++) {
        const int q = p + i / 2 < P ? p + i / 2 : p, v = i % 2;
        v128_t sum = together(acc[q][2 * v], acc[q][2 * v + 1]);
        if (e.row_sums) sum = wasm_i32x4_add(sum, wasm_i32x4_splat(e.row_sums[pixel + q]));
        quanta[i] = requantise(sum, scale[v]);
      }
      v128_t bytes = to_bytes(quanta[0], quanta[1], quanta[2], quanta[3]);
      if (e.table) bytes = look_up(e.table, bytes);
      const bool two = p + 1 < P;
      if (e.residual) {
        v128_t summand = wasm_v128_load64_zero(other + p * BLOCK);
        if (two) summand = wasm_v128_load64_lane(other + (p + 1) * BLOCK, summand, 1);
        bytes = residual_sum(e)(bytes, summand);
      }
      wasm_v128_store64_lane(out + p * BLOCK, bytes, 0);
      if (two) wasm_v128_store64_lane(out + (p + 1) * BLOCK, bytes, 1);
    }
  }
};

static void pack_word(const int8_t weights[4], char *packed) {
  const int16_t wide[4] = {weights[0], weights[1], weights[2], weights[3]};
  __builtin_memcpy(packed, wide, sizeof wide);
}

// Depthwise. Two columns of a channel in one 32-bit lane, as int16, meet two weights in one instruction. Of a row
// of the kernel, output x needs the columns x .. x + width - 1: the pairs that begin at x, x + 2, ... For stride 1
// two outputs share pairs: the odd one's weights are shifted by a column. Packed: for each kernel row, for each
// shift (0, 1), for each pair: 16 channels x 2 weights.
static inline int pairs_of(int kernel_width) { return (kernel_width + 1 + 1) / 2; }

static size_t depthwise_weights(int kernel_height, int kernel_width) {
  return size_t(kernel_height) * 2 * size_t(pairs_of(kernel_width)) * 64;
}

static void pack_depthwise(const void *weights, int kernel_height, int kernel_width, char *packed) {
  const int8_t *w = static_cast<const int8_t *>(weights);
  int16_t *to = reinterpret_cast<int16_t *>(packed);
  for (int ky = 0; ky < kernel_height; ky++)
    for (int shift = 0; shift < 2; shift++)
      for (int pair = 0; pair < pairs_of(kernel_width); pair++)
        for (int c = 0; c < BLOCK; c++)
          for (int i = 0; i < 2; i++) {
            const int kx = pair * 2 + i - shift;
            const bool inside = kx >= 0 && kx < kernel_width;
            *to++ = inside ? w[(ky * kernel_width + kx) * BLOCK + c] : int16_t(0);
          }
}

// Two pixels of 16 channels as pairs of int16.
static inline Lanes16 pairs(v128_t first, v128_t second) {
  const v128_t low = wasm_i8x16_shuffle(first, second, 0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23);
  const v128_t high =
      wasm_i8x16_shuffle(first, second, 8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31);
  return {{wasm_u16x8_extend_low_u8x16(low), wasm_u16x8_extend_high_u8x16(low), wasm_u16x8_extend_low_u8x16(high),
           wasm_u16x8_extend_high_u8x16(high)}};
}

static inline void add_products(Lanes16 &sums, const Lanes16 &columns, const char *weights) {
  MOBILENET_UNROLL
  for (int i = 0; i < 4; i++) {
    const v128_t products = wasm_i32x4_dot_i16x8(columns.part[i], wasm_v128_load(weights + 16 * i));
    sums.part[i] = wasm_i32x4_add(sums.part[i], products);
  }
}

static inline void finish_pixel(const Lanes16 &sums, const DepthwiseCall &call, char *out) {
  const Epilogue &e = *call.epilogue;
  const Requantise requantise(e.low, e.high, e.zero);
  const float *scale = e.scale + call.block * BLOCK;
  v128_t quanta[4];
  MOBILENET_UNROLL
  for (int i = 0; i < 4; i++) quanta[i] = requantise(sums.part[i], wasm_v128_load(scale + 4 * i));
  const v128_t bytes = to_bytes(quanta[0], quanta[1], quanta[2], quanta[3]);
  wasm_v128_store(out, e.table ? look_up(e.table, bytes) : bytes);
}

static inline Lanes16 bias_of(const DepthwiseCall &call) {
  const int32_t *bias = static_cast<const int32_t *>(call.epilogue->bias) + call.block * BLOCK;
  return {{wasm_v128_load(bias), wasm_v128_load(bias + 4), wasm_v128_load(bias + 8), wasm_v128_load(bias + 12)}};
}

// Two outputs at a time; STRIDE 1 or 2, PAIRS of a kernel row.
template <int STRIDE, int PAIRS>
static void depthwise_row(const DepthwiseCall &call) {
  for (int64_t x = 0; x < call.pixels; x += 2) {
    Lanes16 first = bias_of(call), second = first;
    const char *w = call.weights;
    for (int ky = 0; ky < call.kernel_height; ky++) {
      const char *a = call.rows[ky] + x * STRIDE * BLOCK;
      MOBILENET_UNROLL
      for (int q = 0; q < PAIRS + STRIDE - 1; q++) {
        const Lanes16 columns = pairs(wasm_v128_load(a + 2 * q * BLOCK), wasm_v128_load(a + (2 * q + 1) * BLOCK));
        if (q < PAIRS) add_products(first, columns, w + q * 64);
        if (STRIDE == 1) add_products(second, columns, w + (PAIRS + q) * 64);
        if (STRIDE == 2 && q > 0) add_products(second, columns, w + (q - 1) * 64);
      }
      w += 2 * PAIRS * 64;
    }
    finish_pixel(first, call, call.out + x * BLOCK);
    if (x + 1 < call.pixels) finish_pixel(second, call, call.out + (x + 1) * BLOCK);
  }
}

// Any stride, dilation and width: one tap at a time, its weight met by the half of a pair that it is in.
static void depthwise_any(const DepthwiseCall &call) {
  const int pair_count = pairs_of(call.kernel_width);
  const v128_t zero = wasm_i32x4_splat(0);
  for (int64_t x = 0; x < call.pixels; x++) {
    Lanes16 sums = bias_of(call);
    for (int ky = 0; ky < call.kernel_height; ky++)
      for (int kx = 0; kx < call.kernel_width; kx++) {
        const v128_t a = wasm_v128_load(call.rows[ky] + (x * call.stride + kx * call.dilation) * BLOCK);
        const Lanes16 column = kx % 2 ? pairs(zero, a) : pairs(a, zero);
        add_products(sums, column, call.weights + (ky * 2 * pair_count + kx / 2) * 64);
      }
    finish_pixel(sums, call, call.out + x * BLOCK);
  }
}

static void depthwise_integer(const DepthwiseCall &call) {
  const bool near = call.dilation == 1 && call.stride <= 2;
  switch (near ? call.kernel_width * 2 + call.stride : 0) {
    case 3 * 2 + 1: return depthwise_row<1, 2>(call);
    case 3 * 2 + 2: return depthwise_row<2, 2>(call);
    case 5 * 2 + 1: return depthwise_row<1, 3>(call);
    case 5 * 2 + 2: return depthwise_row<2, 3>(call);
    default: return depthwise_any(call);
  }
}

void add_integer(Kernels &kernels) {
  constexpr int u8 = int(Element::u8);
  kernels.has[u8] = true;
  kernels.gemm[u8] = gemm<GemmU8>;
  kernels.gemv[u8] = gemm<GemmU8>;  // whose tile has sums enough even for one pixel
  add_integer_elementwise(kernels);
  kernels.depthwise[u8] = each_row<depthwise_integer, 1>;
  kernels.depthwise_weights[u8] = depthwise_weights;
  kernels.pack_depthwise[u8] = pack_depthwise;
  kernels.panel[u8] = 16;
  kernels.word_bytes[u8] = 8;
  kernels.tile_pixels[u8] = GemmU8::MAX_PIXELS;
  kernels.pack_word = pack_word;
  kernels.input_offset = 0;
  kernels.pixels_over_read[int(Element::u8)] = 8;
}

}  // namespace mobilenet::MOBILENET_ISA
