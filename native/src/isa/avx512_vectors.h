// Vectors of AVX-512, and of 8 channels for the last half block.
#pragma once
#include <immintrin.h>

#include "../kernels.h"

namespace mobilenet::MOBILENET_ISA {

struct Float8 {
  using Acc = __m256;
  static constexpr int LANES = 8, DEPTHWISE_PIXELS = 8, REGISTERS = 32;
  static Acc set(float x) { return _mm256_set1_ps(x); }
  static Acc load(const float *p) { return _mm256_loadu_ps(p); }
  static void store(float *p, Acc x) { _mm256_storeu_ps(p, x); }
  static Acc add(Acc a, Acc b) { return _mm256_add_ps(a, b); }
  static Acc zero() { return _mm256_setzero_ps(); }
  static Acc sum(Acc a, Acc b) { return add(a, b); }
  static Acc mul(Acc a, Acc b) { return _mm256_mul_ps(a, b); }
  static Acc min(Acc a, Acc b) { return _mm256_min_ps(a, b); }
  static Acc max(Acc a, Acc b) { return _mm256_max_ps(a, b); }
  static void fma(Acc &acc, Acc a, Acc b) { acc = _mm256_fmadd_ps(a, b, acc); }
};

struct Float16 {
  using Acc = __m512;
  using Half = Float8;
  static constexpr int LANES = 16, DEPTHWISE_PIXELS = 8, REGISTERS = 32;
  static Acc set(float x) { return _mm512_set1_ps(x); }
  static Acc load(const float *p) { return _mm512_loadu_ps(p); }
  static void store(float *p, Acc x) { _mm512_storeu_ps(p, x); }
  static Acc add(Acc a, Acc b) { return _mm512_add_ps(a, b); }
  static Acc zero() { return _mm512_setzero_ps(); }
  static Acc sum(Acc a, Acc b) { return add(a, b); }
  static Acc mul(Acc a, Acc b) { return _mm512_mul_ps(a, b); }
  static Acc min(Acc a, Acc b) { return _mm512_min_ps(a, b); }
  static Acc max(Acc a, Acc b) { return _mm512_max_ps(a, b); }
  static void fma(Acc &acc, Acc a, Acc b) { acc = _mm512_fmadd_ps(a, b, acc); }
};

// How elements are kept. The halves write all 16 lanes, so that the last block's rest is never rubbish that is
// not a number.
struct StoreF32Half {
  static constexpr int ELEMENT_BYTES = 4;
  static __m256 load(const char *p) { return _mm256_loadu_ps(reinterpret_cast<const float *>(p)); }
  static void store(char *p, __m256 x) { _mm512_storeu_ps(p, _mm512_zextps256_ps512(x)); }
};

struct StoreF32 {
  using Half = StoreF32Half;
  static constexpr int ELEMENT_BYTES = 4;
  static __m512 load(const char *p) { return _mm512_loadu_ps(p); }
  static void store(char *p, __m512 x) { _mm512_storeu_ps(p, x); }
};

}  // namespace mobilenet::MOBILENET_ISA
