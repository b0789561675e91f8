// What works channel by channel on blocks: gates, sums, means, tables.
#pragma once

#include "../kernels.h"
#include "finish_float.h"

namespace mobilenet::MOBILENET_ISA {

template <class F>
static inline typename F::Acc activated(typename F::Acc x, int activation) {
  typename F::Acc acc[1][1] = {{x}};
  activate_tile<F, 1, 1>(acc, activation, nullptr);
  return acc[0][0];
}

// out = activation(a * gate), the gate one pixel for all.
template <class F, class S>
static void mul_gate_float(const char *a, const char *gate, char *out, int64_t pixels, const Elementwise &how) {
  for (int lane = 0; lane < BLOCK; lane += F::LANES) {
    const int64_t at = lane * S::ELEMENT_BYTES;
    const auto factor = S::load(gate + at);
    for (int64_t p = 0, i = at; p < pixels; p++, i += BLOCK * S::ELEMENT_BYTES)
      S::store(out + i, activated<F>(F::mul(S::load(a + i), factor), how.activation));
  }
}

template <class F, class S>
static void add_float(const char *a, const char *b, char *out, int64_t pixels, const Elementwise &how) {
  const int64_t bytes = pixels * BLOCK * S::ELEMENT_BYTES;
  for (int64_t i = 0; i < bytes; i += F::LANES * S::ELEMENT_BYTES)
    S::store(out + i, activated<F>(F::add(S::load(a + i), S::load(b + i)), how.activation));
}

template <class F, class S>
static void activate_float(const char *a, const char *, char *out, int64_t pixels, const Elementwise &how) {
  const int64_t bytes = pixels * BLOCK * S::ELEMENT_BYTES;
  for (int64_t i = 0; i < bytes; i += F::LANES * S::ELEMENT_BYTES)
    S::store(out + i, activated<F>(S::load(a + i), how.activation));
}

// The mean of a block's pixels: four sums side by side, then together.
template <class F, class S>
static void mean_float(const char *a, const char *, char *out, int64_t pixels, const Elementwise &how) {
  constexpr int64_t PIXEL = BLOCK * S::ELEMENT_BYTES;
  for (int lane = 0; lane < BLOCK; lane += F::LANES) {
    const char *from = a + lane * S::ELEMENT_BYTES;
    typename F::Acc sums[4] = {F::set(0), F::set(0), F::set(0), F::set(0)};
    int64_t p = 0;
    for (; p + 4 <= pixels; p += 4)
      for (int i = 0; i < 4; i++) sums[i] = F::add(sums[i], S::load(from + (p + i) * PIXEL));
    for (; p < pixels; p++) sums[0] = F::add(sums[0], S::load(from + p * PIXEL));
    const auto sum = F::add(F::add(sums[0], sums[1]), F::add(sums[2], sums[3]));
    S::store(out + lane * S::ELEMENT_BYTES, F::mul(sum, F::set(how.scale)));
  }
}

// Sixteen channels; the compiler splits these vectors into those that the instruction set has.
typedef uint8_t Byte16 __attribute__((vector_size(16)));
typedef int32_t Int16 __attribute__((vector_size(64)));
typedef float Floats16 __attribute__((vector_size(64)));

static inline Int16 load_bytes(const char *from) {
  Byte16 bytes;
  __builtin_memcpy(&bytes, from, sizeof bytes);
  return __builtin_convertvector(bytes, Int16);
}

static inline void store_bytes(char *to, Int16 x) {
  const Byte16 bytes = __builtin_convertvector(x, Byte16);
  __builtin_memcpy(to, &bytes, sizeof bytes);
}

static inline Int16 limit(Int16 x, int low, int high) {
  x = x < low ? Int16{} + low : x;
  return x > high ? Int16{} + high : x;
}

// rint(x) + zero within low .. high. Adding 1.5 * 2^23 leaves no bits for fractions: the sum is rounded to even.
static inline Int16 rounded(Floats16 x, const Elementwise &how) {
  const float lowest = float(how.low - how.zero), highest = float(how.high - how.zero), magic = 12582912.0f;
  x = x < lowest ? Floats16{} + lowest : x;
  x = x > highest ? Floats16{} + highest : x;
  return __builtin_convertvector((x + magic) - magic, Int16) + how.zero;
}

static void mul_gate_u8(const char *a, const char *gate, char *out, int64_t pixels, const Elementwise &how) {
  const Floats16 factor = __builtin_convertvector(load_bytes(gate) - how.zero_b, Floats16);
  for (int64_t p = 0; p < pixels; p++)
    store_bytes(
        out + p * BLOCK,
        rounded(__builtin_convertvector(load_bytes(a + p * BLOCK) - how.zero_a, Floats16) * factor * how.scale,
                how));
}

static void add_u8(const char *a, const char *b, char *out, int64_t pixels, const Elementwise &how) {
  for (int64_t i = 0; i < pixels * BLOCK; i += BLOCK) {
    const Int16 sum = load_bytes(a + i) * how.factor_a + load_bytes(b + i) * how.factor_b + how.offset;
    store_bytes(out + i, limit((sum >> how.shift) + how.zero, how.low, how.high));
  }
}

static void table_u8(const char *a, const char *, char *out, int64_t pixels, const Elementwise &how) {
  for (int64_t i = 0; i < pixels * BLOCK; i++) out[i] = char(how.table[uint8_t(a[i])]);
}

static void row_sums(const char *a, const Run *runs, const int *channels, int run_count, int64_t pixels,
                     int32_t factor, int32_t offset, int32_t *sums) {
  for (int64_t p = 0; p < pixels; p++) {
    int32_t sum = 0;
    for (int r = 0; r < run_count; r++) {
      const uint8_t *from = reinterpret_cast<const uint8_t *>(a) + runs[r].offset + p * BLOCK;
      for (int c = 0; c < channels[r]; c++) sum += from[c] - offset;
    }
    sums[p] = factor * sum;
  }
}

static void mean_u8(const char *a, const char *, char *out, int64_t pixels, const Elementwise &how) {
  int64_t sums[BLOCK] = {};
  for (int64_t p = 0; p < pixels;) {
    Int16 part = {};
    const int64_t end = pixels - p < 65536 ? pixels : p + 65536;  // int32 holds the sum of so many bytes
    for (; p < end; p++) part += load_bytes(a + p * BLOCK);
    for (int c = 0; c < BLOCK; c++) sums[c] += part[c];
  }
  Floats16 total;
  for (int c = 0; c < BLOCK; c++) total[c] = float(sums[c] - pixels * how.zero_a);
  store_bytes(out, rounded(total * how.scale, how));
}

// exp in float, to 2 units in the last place for -87 <= x <= 0; what lies below is 0 for any use. Cody and Waite's
// reduction to |r| <= ln(2) / 2, then the Taylor series to the 7th power.
static inline Floats16 exponential(Floats16 x) {
  const float magic = 12582912.0f;
  x = x < -87.0f ? Floats16{} - 87.0f : x;
  const Floats16 n = (x * 1.44269504f + magic) - magic;
  const Floats16 r = (x - n * 0.693359375f) + n * 2.12194440e-4f;
  Floats16 y = r * (1.0f / 5040) + 1.0f / 720;
  y = y * r + 1.0f / 120;
  y = y * r + 1.0f / 24;
  y = y * r + 1.0f / 6;
  y = y * r + 0.5f;
  y = y * r + 1.0f;
  y = y * r + 1.0f;
  const Int16 power = (__builtin_convertvector(n, Int16) + 127) << 23;
  Floats16 factor;
  __builtin_memcpy(&factor, &power, sizeof factor);
  return y * factor;
}

// 16 channels of a pixel as floats and back.
template <class F, class S>
static inline Floats16 load_floats(const char *from) {
  Floats16 x;
  float lanes[BLOCK];
  for (int lane = 0; lane < BLOCK; lane += F::LANES)
    F::store(lanes + lane, S::load(from + lane * S::ELEMENT_BYTES));
  __builtin_memcpy(&x, lanes, sizeof x);
  return x;
}

template <class F, class S>
static inline void store_floats(char *to, Floats16 x) {
  float lanes[BLOCK];
  __builtin_memcpy(lanes, &x, sizeof x);
  for (int lane = 0; lane < BLOCK; lane += F::LANES) S::store(to + lane * S::ELEMENT_BYTES, F::load(lanes + lane));
}

template <class F, class S>
static void softmax(const char *a, char *out, int64_t pixels, int64_t channels, int64_t block_bytes, float beta) {
  constexpr int64_t PIXEL = BLOCK * S::ELEMENT_BYTES;
  const int64_t blocks = (channels + BLOCK - 1) / BLOCK, rest = channels - (blocks - 1) * BLOCK;
  Int16 lane = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
  const auto inside = lane < Int16{} + int32_t(rest);
  for (int64_t p = 0; p < pixels; p++, a += PIXEL, out += PIXEL) {
    const auto value = [&](int64_t block) {
      const Floats16 x = load_floats<F, S>(a + block * block_bytes) * beta;
      return block + 1 < blocks ? x : inside ? x : Floats16{} - 3e38f;
    };
    Floats16 largest = value(0);
    for (int64_t b = 1; b < blocks; b++) {
      const Floats16 x = value(b);
      largest = x > largest ? x : largest;
    }
    float top = largest[0], sum = 0;
    for (int i = 1; i < BLOCK; i++) top = largest[i] > top ? largest[i] : top;
    Floats16 total = {};
    for (int64_t b = 0; b < blocks; b++) {
      Floats16 power = exponential(value(b) - top);
      if (b + 1 == blocks) power = inside ? power : Floats16{};
      total += power;
      store_floats<F, S>(out + b * block_bytes, power);
    }
    for (int i = 0; i < BLOCK; i++) sum += total[i];
    const float scale = 1 / sum;
    for (int64_t b = 0; b < blocks; b++)
      store_floats<F, S>(out + b * block_bytes, load_floats<F, S>(out + b * block_bytes) * scale);
  }
}

static inline void quantise_16(const float *from, float inverse, const Elementwise &how, char *to) {
  Floats16 x;
  __builtin_memcpy(&x, from, sizeof x);
  x *= inverse;
  x = x == x ? x : Floats16{} - 512.0f;  // what is not a number becomes the lowest
  store_bytes(to, rounded(x, how));
}

// The last few of a line go by a copy of 16, so that the loop copies constant sizes.
static void quantise_line(const float *from, int64_t count, float inverse, int32_t zero, char *to) {
  Elementwise how;
  how.zero = zero;
  int64_t i = 0;
  for (; i + BLOCK <= count; i += BLOCK) quantise_16(from + i, inverse, how, to + i);
  float rest[BLOCK] = {};
  char bytes[BLOCK];
  __builtin_memcpy(rest, from + i, sizeof(float) * size_t(count - i));
  quantise_16(rest, inverse, how, bytes);
  __builtin_memcpy(to + i, bytes, size_t(count - i));
}

template <class F, class S>
static void narrow_line(const float *from, int64_t count, char *to) {
  int64_t i = 0;
  for (; i + F::LANES <= count; i += F::LANES) S::store(to + i * S::ELEMENT_BYTES, F::load(from + i));
  float rest[F::LANES] = {};
  char narrow[F::LANES * S::ELEMENT_BYTES];
  __builtin_memcpy(rest, from + i, sizeof(float) * size_t(count - i));
  S::store(narrow, F::load(rest));
  __builtin_memcpy(to + i * S::ELEMENT_BYTES, narrow, size_t(count - i) * S::ELEMENT_BYTES);
}

template <class F, class S>
static void add_float_elementwise(Kernels &kernels, Element element) {
  kernels.mul_gate[int(element)] = mul_gate_float<F, S>;
  kernels.add[int(element)] = add_float<F, S>;
  kernels.activate[int(element)] = activate_float<F, S>;
  kernels.mean[int(element)] = mean_float<F, S>;
  kernels.softmax[int(element)] = softmax<F, S>;
}

static inline void add_integer_elementwise(Kernels &kernels) {
  constexpr int u8 = int(Element::u8);
  kernels.mul_gate[u8] = mul_gate_u8;
  kernels.add[u8] = add_u8;
  kernels.activate[u8] = table_u8;
  kernels.mean[u8] = mean_u8;
  kernels.row_sums = row_sums;
  kernels.quantise_line = quantise_line;
}

}  // namespace mobilenet::MOBILENET_ISA
