// Integers on NEON, with and without dot products: what becomes of sums, and depthwise convolutions. Inputs are
// uint8; multiplications take int8 or int16, so every input meets them less 128 (Kernels::input_offset).
#pragma once
#include "neon_vectors.h"

namespace mobilenet::MOBILENET_ISA {

constexpr int32_t INPUT_OFFSET = 128;

static inline int8x16_t centred(const char *p) {
  return vreinterpretq_s8_u8(veorq_u8(vld1q_u8(reinterpret_cast<const uint8_t *>(p)), vdupq_n_u8(0x80)));
}

// A word of 4 inputs, as often as it fits.
static inline int8x16_t centred_word(const char *a) {
  int32_t word;
  __builtin_memcpy(&word, a, 4);
  return vreinterpretq_s8_s32(vdupq_n_s32(word ^ int32_t(0x80808080)));
}

// 16 numbers to bytes; what is outside 0 .. 255 saturates.
static inline uint8x16_t to_bytes(const int32x4_t (&x)[4], int16x8_t zero) {
  const int16x8_t low = vqaddq_s16(vcombine_s16(vqmovn_s32(x[0]), vqmovn_s32(x[1])), zero);
  const int16x8_t high = vqaddq_s16(vcombine_s16(vqmovn_s32(x[2]), vqmovn_s32(x[3])), zero);
  return vcombine_u8(vqmovun_s16(low), vqmovun_s16(high));
}

static inline uint8x16_t within(uint8x16_t x, uint8_t low, uint8_t high) {
  return vminq_u8(vmaxq_u8(x, vdupq_n_u8(low)), vdupq_n_u8(high));
}

static inline uint8x16_t look_up(const uint8_t *table, uint8x16_t index) {
  uint8x16_t result = vqtbl4q_u8(vld1q_u8_x4(table), index);  // 0 where the index is past 63
  MOBILENET_UNROLL
  for (int i = 64; i < 256; i += 64) {
    const uint8x16_t place = vsubq_u8(index, vdupq_n_u8(uint8_t(i)));
    result = vqtbx4q_u8(result, vld1q_u8_x4(table + i), place);
  }
  return result;
}

// rint(float(sum) * scale) + zero, limited, looked up.
static inline uint8x16_t requantise(const int32x4_t (&sum)[4], const float32x4_t (&scale)[4], const Epilogue &e) {
  int32x4_t quanta[4];
  MOBILENET_UNROLL
  for (int i = 0; i < 4; i++) quanta[i] = vcvtnq_s32_f32(vmulq_f32(vcvtq_f32_s32(sum[i]), scale[i]));
  const uint8x16_t x = within(to_bytes(quanta, vdupq_n_s16(int16_t(e.zero))), e.low, e.high);
  return e.table ? look_up(e.table, x) : x;
}

// Rule 6 of reference_integer.py.
static inline uint8x16_t add_residual(uint8x16_t x, uint8x16_t other, const Epilogue &e) {
  const auto wide = [](uint8x16_t bytes, int part) {
    const uint16x8_t half = part < 2 ? vmovl_u8(vget_low_u8(bytes)) : vmovl_high_u8(bytes);
    return vreinterpretq_s32_u32(part % 2 ? vmovl_high_u16(half) : vmovl_u16(vget_low_u16(half)));
  };
  const int32x4_t shift = vdupq_n_s32(-e.add_shift);  // to the right
  int32x4_t sums[4];
  MOBILENET_UNROLL
  for (int i = 0; i < 4; i++) {
    const int32x4_t self = vmlaq_n_s32(vdupq_n_s32(e.add_offset), wide(x, i), e.add_self);
    sums[i] = vshlq_s32(vmlaq_n_s32(self, wide(other, i), e.add_other), shift);
  }
  return within(to_bytes(sums, vdupq_n_s16(int16_t(e.add_zero))), e.add_low, e.add_high);
}

// A tile's sums, Q vectors of 4 channels for each pixel: 16 channels of a pixel at a time, or 8 of two.
template <int P, int Q>
static inline __attribute__((always_inline)) void finish_integer(const int32x4_t (&sums)[P][Q],
                                                                 const GemmCall &call, int channel,
                                                                 int64_t pixel) {
  static_assert(Q == 2 || Q == 4);
  const Epilogue &e = *call.epilogue;
  const int64_t part = channel % BLOCK + pixel * BLOCK;
  char *out = call.out + channel / BLOCK * call.out_block + part;
  const char *other = e.residual ? call.residual + channel / BLOCK * call.residual_block + part : nullptr;
  float32x4_t scale[4];
  MOBILENET_UNROLL
  for (int i = 0; i < 4; i++) scale[i] = vld1q_f32(e.scale + channel + i % Q * 4);
  MOBILENET_UNROLL
  for (int p = 0; p < P; p += 4 / Q) {
    int32x4_t sum[4];
    MOBILENET_UNROLL
    for (int i = 0; i < 4; i++) {
      const int q = p + i / Q < P ? p + i / Q : p;
      sum[i] = sums[q][i % Q];
      if (e.row_sums) sum[i] = vaddq_s32(sum[i], vdupq_n_s32(e.row_sums[pixel + q]));
    }
    uint8x16_t bytes = requantise(sum, scale, e);
    uint8_t *to = reinterpret_cast<uint8_t *>(out) + p * BLOCK;
    const uint8_t *from = reinterpret_cast<const uint8_t *>(other) + (e.residual ? p * BLOCK : 0);
    if constexpr (Q == 4) {
      if (e.residual) bytes = add_residual(bytes, vld1q_u8(from), e);
      vst1q_u8(to, bytes);
    } else {
      const bool two = p + 1 < P;
      if (e.residual)
        bytes = add_residual(bytes, vcombine_u8(vld1_u8(from), vld1_u8(two ? from + BLOCK : from)), e);
      vst1_u8(to, vget_low_u8(bytes));
      if (two) vst1_u8(to + BLOCK, vget_high_u8(bytes));
    }
  }
}

// Depthwise. Weights are packed as int16, [kernel_height][kernel_width][16].
static inline size_t depthwise_integer_weights(int kernel_height, int kernel_width) {
  return size_t(kernel_height) * size_t(kernel_width) * BLOCK * sizeof(int16_t);
}

static inline void pack_depthwise_integer(const void *weights, int kernel_height, int kernel_width, char *packed) {
  const int8_t *from = static_cast<const int8_t *>(weights);
  int16_t *to = reinterpret_cast<int16_t *>(packed);
  for (int i = 0; i < kernel_height * kernel_width * BLOCK; i++) to[i] = from[i];
}

struct Lanes16 {
  int32x4_t part[4];
};

static inline void add_products(Lanes16 &sums, int16x8_t low, int16x8_t high, int16x8_t w_low, int16x8_t w_high) {
  sums.part[0] = vmlal_s16(sums.part[0], vget_low_s16(low), vget_low_s16(w_low));
  sums.part[1] = vmlal_high_s16(sums.part[1], low, w_low);
  sums.part[2] = vmlal_s16(sums.part[2], vget_low_s16(high), vget_low_s16(w_high));
  sums.part[3] = vmlal_high_s16(sums.part[3], high, w_high);
}

// P outputs of 16 channels. WIDTH 0, STRIDE 0: any, and any dilation; else each pixel is widened once.
template <int P, int STRIDE, int WIDTH>
static inline __attribute__((always_inline)) void depthwise_sums(const DepthwiseCall &call, int64_t x,
                                                                 Lanes16 (&sums)[P]) {
  const int16_t *w = reinterpret_cast<const int16_t *>(call.weights);
  const uint8x8_t offset = vdup_n_u8(INPUT_OFFSET);
  const auto low = [&](uint8x16_t a) { return vreinterpretq_s16_u16(vsubl_u8(vget_low_u8(a), offset)); };
  const auto high = [&](uint8x16_t a) { return vreinterpretq_s16_u16(vsubl_u8(vget_high_u8(a), offset)); };
  for (int ky = 0; ky < call.kernel_height; ky++) {
    const uint8_t *row = reinterpret_cast<const uint8_t *>(call.rows[ky]) + x * call.stride * BLOCK;
    if constexpr (WIDTH > 0) {
      MOBILENET_UNROLL
      for (int j = 0; j < (P - 1) * STRIDE + WIDTH; j++) {
        const uint8x16_t a = vld1q_u8(row + j * BLOCK);
        const int16x8_t a_low = low(a), a_high = high(a);
        MOBILENET_UNROLL
        for (int kx = 0; kx < WIDTH; kx++)
          if ((j - kx) % STRIDE == 0 && j >= kx && (j - kx) / STRIDE < P)
            add_products(sums[(j - kx) / STRIDE], a_low, a_high, vld1q_s16(w + kx * BLOCK),
                         vld1q_s16(w + kx * BLOCK + 8));
      }
    } else {
      for (int kx = 0; kx < call.kernel_width; kx++)
        for (int p = 0; p < P; p++) {
          const uint8x16_t a = vld1q_u8(row + (p * call.stride + kx * call.dilation) * BLOCK);
          add_products(sums[p], low(a), high(a), vld1q_s16(w + kx * BLOCK), vld1q_s16(w + kx * BLOCK + 8));
        }
    }
    w += call.kernel_width * BLOCK;
  }
}

template <int P, int STRIDE, int WIDTH>
static inline void depthwise_pixels(const DepthwiseCall &call, int64_t x) {
  const Epilogue &e = *call.epilogue;
  const int32_t *bias = static_cast<const int32_t *>(e.bias) + call.block * BLOCK;
  Lanes16 sums[P];
  float32x4_t scale[4];
  MOBILENET_UNROLL
  for (int i = 0; i < 4; i++) {
    scale[i] = vld1q_f32(e.scale + call.block * BLOCK + 4 * i);
    MOBILENET_UNROLL
    for (int p = 0; p < P; p++) sums[p].part[i] = vld1q_s32(bias + 4 * i);
  }
  depthwise_sums<P, STRIDE, WIDTH>(call, x, sums);
  MOBILENET_UNROLL
  for (int p = 0; p < P; p++)
    vst1q_u8(reinterpret_cast<uint8_t *>(call.out) + (x + p) * BLOCK, requantise(sums[p].part, scale, e));
}

template <int STRIDE, int WIDTH>
static void depthwise_integer_row(const DepthwiseCall &call) {
  int64_t x = 0;
  for (; x + 4 <= call.pixels; x += 4) depthwise_pixels<4, STRIDE, WIDTH>(call, x);
  for (; x < call.pixels; x++) depthwise_pixels<1, STRIDE, WIDTH>(call, x);
}

static void depthwise_integer(const DepthwiseCall &call) {
  const bool near = call.dilation == 1 && call.stride <= 2;
  switch (near ? call.kernel_width * 2 + call.stride : 0) {
    case 3 * 2 + 1: return depthwise_integer_row<1, 3>(call);
    case 3 * 2 + 2: return depthwise_integer_row<2, 3>(call);
    case 5 * 2 + 1: return depthwise_integer_row<1, 5>(call);
    case 5 * 2 + 2: return depthwise_integer_row<2, 5>(call);
    default: return depthwise_integer_row<0, 0>(call);
  }
}

}  // namespace mobilenet::MOBILENET_ISA
