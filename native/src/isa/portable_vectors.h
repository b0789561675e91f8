// Vectors of four lanes that g++ and clang have for every processor. Only where a processor's first instruction
// set has something that they would not find is it named.
#pragma once

#if defined(__SSE2__)
#include <emmintrin.h>
#endif

#include "../kernels.h"
#include "../kernels/unroll.h"

namespace mobilenet::MOBILENET_ISA {

typedef float Floats4 __attribute__((vector_size(16)));
typedef int32_t Ints4 __attribute__((vector_size(16)));
typedef int16_t Shorts8 __attribute__((vector_size(16)));
typedef uint8_t Bytes16 __attribute__((vector_size(16)));

template <class V>
static inline V read(const void *p) {
  V x;
  __builtin_memcpy(&x, p, sizeof x);
  return x;
}

template <class V>
static inline void write(void *p, V x) {
  __builtin_memcpy(p, &x, sizeof x);
}

struct Float4 {
  using Acc = Floats4;
  static constexpr int LANES = 4, DEPTHWISE_PIXELS = 8, REGISTERS = 16;
  static Acc set(float x) { return Acc{x, x, x, x}; }
  static Acc load(const float *p) { return read<Acc>(p); }
  static void store(float *p, Acc x) { write(p, x); }
  static Acc add(Acc a, Acc b) { return a + b; }
  static Acc zero() { return Acc{}; }
  static Acc sum(Acc a, Acc b) { return a + b; }
  static Acc mul(Acc a, Acc b) { return a * b; }
  static Acc min(Acc a, Acc b) { return a < b ? a : b; }
  static Acc max(Acc a, Acc b) { return a > b ? a : b; }
  static void fma(Acc &acc, Acc a, Acc b) { acc += a * b; }
};

struct StoreF32 {
  static constexpr int ELEMENT_BYTES = 4;
  static Floats4 load(const char *p) { return read<Floats4>(p); }
  static void store(char *p, Floats4 x) { write(p, x); }
};

// Sums of the products of neighbours.
static inline Ints4 dot_pairs(Shorts8 a, Shorts8 b) {
#if defined(__SSE2__)
  return (Ints4)_mm_madd_epi16((__m128i)a, (__m128i)b);
#else
  const Ints4 x = (Ints4)a, y = (Ints4)b;  // products of the upper halves, and of the lower ones
  return (x >> 16) * (y >> 16) + (x << 16 >> 16) * (y << 16 >> 16);
#endif
}

static inline Ints4 minimum(Ints4 a, Ints4 b) { return a < b ? a : b; }
static inline Ints4 maximum(Ints4 a, Ints4 b) { return a > b ? a : b; }

// As integer.h asks; the order of channels is the same for matrix and depthwise kernels.
struct Int4 {
  using Vector = Ints4;
  using Floats = Floats4;
  using Bytes = Bytes16;
  static constexpr int PIXELS = 1, VECTORS = 4, TAPS = 2;
  struct Limits {
    Ints4 zero, low, high;
    Limits(int32_t zero_point, uint8_t lowest, uint8_t highest)
        : zero(set(zero_point)), low(set(lowest)), high(set(highest)) {}
  };
  static Vector set(int32_t x) { return Vector{x, x, x, x}; }
  static Vector add(Vector a, Vector b) { return a + b; }
  static Vector mul(Vector a, Vector b) { return a * b; }
  static Vector shift_right(Vector a, int count) { return a >> count; }
  static void scales(const float *p, Floats (&four)[4]) {
    MOBILENET_UNROLL
    for (int i = 0; i < 4; i++) four[i] = read<Floats>(p + 4 * i);
  }
  static void sums(const int32_t *p, Vector (&four)[4]) {
    MOBILENET_UNROLL
    for (int i = 0; i < 4; i++) four[i] = read<Vector>(p + 4 * i);
  }
  // Adding 1.5 * 2^23 leaves no bits for fractions: the sum is rounded, to even.
  static Vector quanta(Vector sum, Floats scale) {
    const Floats top = Float4::set(1024), magic = Float4::set(12582912);
    const Floats x = Float4::max(Float4::min(__builtin_convertvector(sum, Floats) * scale, top), -top);
    return __builtin_convertvector((x + magic) - magic, Vector);
  }
  static Bytes bytes(const Vector (&four)[4], const Limits &limits) {
    Bytes all;
    Vector x[4];
    MOBILENET_UNROLL
    for (int i = 0; i < 4; i++) x[i] = maximum(minimum(four[i] + limits.zero, limits.high), limits.low);
#if defined(__SSE2__)
    all = (Bytes)_mm_packus_epi16(_mm_packs_epi32((__m128i)x[0], (__m128i)x[1]),
                                  _mm_packs_epi32((__m128i)x[2], (__m128i)x[3]));
#else
    for (int i = 0; i < 16; i++) all[i] = uint8_t(x[i / 4][i % 4]);
#endif
    return all;
  }
  static void widen(const char *p, int, Vector (&four)[4]) {
    const Bytes pixel = read<Bytes>(p);
    const Shorts8 zero = {}, words[2] = {(Shorts8)lower(pixel, Bytes{}), (Shorts8)upper(pixel, Bytes{})};
    MOBILENET_UNROLL
    for (int i = 0; i < 2; i++) {
      four[2 * i] = (Vector)__builtin_shufflevector(words[i], zero, 0, 8, 1, 9, 2, 10, 3, 11);
      four[2 * i + 1] = (Vector)__builtin_shufflevector(words[i], zero, 4, 12, 5, 13, 6, 14, 7, 15);
    }
  }
  static void store(char *p, Bytes x, int) { write(p, x); }
  static Bytes pixels(const char *p, int64_t) { return read<Bytes>(p); }
  static void columns(const Bytes (&pixels)[2], Vector (&four)[4]) {
    const Bytes zero = {}, low = lower(pixels[0], pixels[1]), high = upper(pixels[0], pixels[1]);
    four[0] = (Vector)lower(low, zero), four[1] = (Vector)upper(low, zero);
    four[2] = (Vector)lower(high, zero), four[3] = (Vector)upper(high, zero);
  }
  // The bytes 0 .. 7 of both in turn, and 8 .. 15. With zeros they are 16-bit numbers: the lower byte comes first.
  static Bytes lower(Bytes a, Bytes b) {
    return __builtin_shufflevector(a, b, 0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23);
  }
  static Bytes upper(Bytes a, Bytes b) {
    return __builtin_shufflevector(a, b, 8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31);
  }
  static Vector weight(const char *p) { return read<Vector>(p); }
  static void mac(Vector &acc, Vector columns, Vector weight) {
    acc += dot_pairs((Shorts8)columns, (Shorts8)weight);
  }
  static void interleave(Bytes &, Bytes &) {}
};

struct Table {
  static void look_up(const uint8_t *table, char *p, int64_t bytes) {
    for (int64_t i = 0; i < bytes; i++) p[i] = char(table[uint8_t(p[i])]);
  }
};

}  // namespace mobilenet::MOBILENET_ISA
