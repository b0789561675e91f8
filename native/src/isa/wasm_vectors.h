// Vectors of WebAssembly: 4 floats, and what becomes of 4 int32 sums.
#pragma once
#include <wasm_simd128.h>

#include "../kernels.h"
#include "../kernels/unroll.h"

namespace mobilenet::MOBILENET_ISA {

// pmin and pmax are one instruction on x86; min and max, which order -0 and NaN, are many.
struct Float4 {
  using Acc = v128_t;
  static constexpr int LANES = 4, DEPTHWISE_PIXELS = 4, REGISTERS = 16;
  static Acc zero() { return wasm_f32x4_splat(0); }
  static Acc set(float x) { return wasm_f32x4_splat(x); }
  static Acc load(const float *p) { return wasm_v128_load(p); }
  static void store(float *p, Acc x) { wasm_v128_store(p, x); }
  static Acc add(Acc a, Acc b) { return wasm_f32x4_add(a, b); }
  static Acc sum(Acc a, Acc b) { return wasm_f32x4_add(a, b); }
  static Acc mul(Acc a, Acc b) { return wasm_f32x4_mul(a, b); }
  static Acc min(Acc a, Acc b) { return wasm_f32x4_pmin(a, b); }
  static Acc max(Acc a, Acc b) { return wasm_f32x4_pmax(a, b); }
#if defined(__wasm_relaxed_simd__)
  static void fma(Acc &acc, Acc a, Acc b) {
    using Floats = float __attribute__((vector_size(16)));
    acc = (v128_t)__builtin_wasm_relaxed_madd_f32x4((Floats)a, (Floats)b, (Floats)acc);
  }
#else
  static void fma(Acc &acc, Acc a, Acc b) { acc = wasm_f32x4_add(acc, wasm_f32x4_mul(a, b)); }
#endif
};

struct StoreF32 {
  static constexpr int ELEMENT_BYTES = 4;
  static v128_t load(const char *p) { return wasm_v128_load(p); }
  static void store(char *p, v128_t x) { wasm_v128_store(p, x); }
};

// rint(float(sum) * scale) + zero within low .. high, as int32. The limits are whole numbers, so limiting before
// rounding is the same; it leaves numbers so small that adding 1.5 * 2^23 rounds them, half to even, and leaves
// the integer in the low bits. (trunc_sat would be eight instructions on x86.)
struct Requantise {
  v128_t low, high, round, offset;
  Requantise(int low_quantum, int high_quantum, int zero)
      : low(wasm_f32x4_splat(float(low_quantum - zero))), high(wasm_f32x4_splat(float(high_quantum - zero))),
        round(wasm_f32x4_splat(12582912.0f)), offset(wasm_i32x4_splat(0x4b400000 - zero)) {}
  v128_t operator()(v128_t scaled) const {
    const v128_t limited = wasm_f32x4_pmin(wasm_f32x4_pmax(scaled, low), high);
    return wasm_i32x4_sub(wasm_f32x4_add(limited, round), offset);
  }
  v128_t operator()(v128_t sum, v128_t scale) const {
    return (*this)(wasm_f32x4_mul(wasm_f32x4_convert_i32x4(sum), scale));
  }
};

// 16 numbers within 0 .. 255 to bytes.
static inline v128_t to_bytes(v128_t a, v128_t b, v128_t c, v128_t d) {
  return wasm_u8x16_narrow_i16x8(wasm_i16x8_narrow_i32x4(a, b), wasm_i16x8_narrow_i32x4(c, d));
}

struct Lanes16 {
  v128_t part[4];
};
static inline Lanes16 from_bytes(v128_t x) {
  const v128_t low = wasm_u16x8_extend_low_u8x16(x), high = wasm_u16x8_extend_high_u8x16(x);
  return {{wasm_u32x4_extend_low_u16x8(low), wasm_u32x4_extend_high_u16x8(low), wasm_u32x4_extend_low_u16x8(high),
           wasm_u32x4_extend_high_u16x8(high)}};
}

static inline v128_t look_up(const uint8_t *table, v128_t index) {
  alignas(16) uint8_t bytes[16];
  wasm_v128_store(bytes, index);
  for (uint8_t &byte : bytes) byte = table[byte];
  return wasm_v128_load(bytes);
}

// (x * factor_x + y * factor_y + offset) >> shift, + zero, within low .. high (rule 6 of reference_integer.py).
struct WeightedSum {
  v128_t factor_x, factor_y, offset, zero, low, high;
  int shift;
  v128_t operator()(v128_t x, v128_t y) const {
    const Lanes16 a = from_bytes(x), b = from_bytes(y);
    v128_t sums[4];
    MOBILENET_UNROLL
    for (int i = 0; i < 4; i++) {
      const v128_t first = wasm_i32x4_mul(a.part[i], factor_x), second = wasm_i32x4_mul(b.part[i], factor_y);
      const v128_t sum = wasm_i32x4_add(wasm_i32x4_add(first, second), offset);
      sums[i] = wasm_i32x4_add(wasm_i32x4_shr(sum, uint32_t(shift)), zero);
    }
    return wasm_u8x16_min(wasm_u8x16_max(to_bytes(sums[0], sums[1], sums[2], sums[3]), low), high);
  }
};

static inline WeightedSum residual_sum(const Epilogue &e) {
  return {wasm_i32x4_splat(e.add_self),     wasm_i32x4_splat(e.add_other),         wasm_i32x4_splat(e.add_offset),
          wasm_i32x4_splat(e.add_zero), wasm_i8x16_splat(int8_t(e.add_low)), wasm_i8x16_splat(int8_t(e.add_high)),
          e.add_shift};
}

}  // namespace mobilenet::MOBILENET_ISA
