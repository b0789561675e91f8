// AVX-512 VNNI: matrix products of bytes.
#pragma once

#include "../kernels/gemm.h"
#include "avx512vnni_finish.h"

namespace mobilenet::avx512vnni {

// 16 or 8 channels.
struct Wide {
  using Vector = __m512i;
  static constexpr int LANES = 16;
  static Vector load(const char *p) { return _mm512_loadu_si512(p); }
  static Vector broadcast(const char *a) {
    Vector x;
    asm("vpbroadcastd %1, %0" : "=v"(x) : "m"(*reinterpret_cast<const int32_t *>(a)));
    return x;
  }
  static Vector sum(Vector a, Vector b) { return _mm512_add_epi32(a, b); }
  static Vector plus(Vector a, int32_t b) { return _mm512_add_epi32(a, _mm512_set1_epi32(b)); }
  static __m512i widened(Vector x) { return x; }
};
struct Narrow {
  using Vector = __m256i;
  static constexpr int LANES = 8;
  static Vector load(const char *p) { return _mm256_loadu_si256(reinterpret_cast<const __m256i *>(p)); }
  static Vector broadcast(const char *a) {
    Vector x;
    asm("vpbroadcastd %1, %0" : "=v"(x) : "m"(*reinterpret_cast<const int32_t *>(a)));
    return x;
  }
  static Vector sum(Vector a, Vector b) { return _mm256_add_epi32(a, b); }
  static Vector plus(Vector a, int32_t b) { return _mm256_add_epi32(a, _mm256_set1_epi32(b)); }
  static __m512i widened(Vector x) { return _mm512_zextsi256_si512(x); }
};

// As assembly, or compilers load the broadcasts of all pixels first and spill the sums.
template <class Vector>
static inline void dot_product(Vector &acc, Vector inputs, Vector weights) {
  asm("vpdpbusd %2, %1, %0" : "+v"(acc) : "v"(inputs), "v"(weights));
}

template <class W, int P, int NV>
static inline __attribute__((always_inline)) void multiply_word(typename W::Vector (&acc)[P][NV], const char *a,
                                                                const char *weights) {
  typename W::Vector w[NV];
  MOBILENET_UNROLL
  for (int v = 0; v < NV; v++) w[v] = W::load(weights + v * W::LANES * 4);
  MOBILENET_UNROLL
  for (int p = 0; p < P; p++) {
    const auto inputs = W::broadcast(a + p * BLOCK);
    MOBILENET_UNROLL
    for (int v = 0; v < NV; v++) dot_product(acc[p][v], inputs, w[v]);
  }
}

// A panel of channels, with what its epilogue needs at hand.
template <class W, int NV, bool PLAIN>
struct GemmPanel {
  static constexpr int VECTORS = NV;
  const Finish finish;
  const int channel;
  const char *const weights, *const bias;
  __m512 scale[NV];

  GemmPanel(const GemmCall &call, int first)
      : finish(*call.epilogue), channel(first), weights(call.weights + first * call.words * 4),
        bias(static_cast<const char *>(call.epilogue->bias) + first * 4) {
    MOBILENET_UNROLL
    for (int v = 0; v < NV; v++) scale[v] = _mm512_loadu_ps(call.epilogue->scale + first + 16 * v);
  }

  template <int P>
  inline __attribute__((always_inline)) void store(typename W::Vector (&acc)[P][NV], const GemmCall &row,
                                                   int64_t pixel) const {
    if (const int32_t *sums = PLAIN ? nullptr : row.epilogue->row_sums) {
      MOBILENET_UNROLL
      for (int p = 0; p < P; p++) {
        MOBILENET_UNROLL
        for (int v = 0; v < NV; v++) acc[p][v] = W::plus(acc[p][v], sums[pixel + p]);
      }
    }
    char *out = row.out + channel / BLOCK * row.out_block + pixel * BLOCK;
    const char *other = row.residual + channel / BLOCK * row.residual_block + pixel * BLOCK;
    MOBILENET_UNROLL
    for (int v = 0; v < NV; v++) {
      MOBILENET_UNROLL
      for (int p = 0; p < P; p += 4) {
        const auto sum = [&](int i) { return W::widened(acc[p + i < P ? p + i : p][v]); };
        const __m512i four[4] = {sum(0), sum(1), sum(2), sum(3)};
        finish.template operator()<PLAIN>(four, scale[v], out + v * row.out_block + p * BLOCK,
                                          other + v * row.residual_block + p * BLOCK, P - p < 4 ? P - p : 4);
      }
    }
  }

  template <int P>
  inline __attribute__((always_inline)) void tile(const GemmCall &row, int64_t pixel) const {
    typename W::Vector acc[P][NV];
    MOBILENET_UNROLL
    for (int v = 0; v < NV; v++) {
      MOBILENET_UNROLL
      for (int p = 0; p < P; p++) acc[p][v] = W::load(bias + v * 64);
    }
    const char *w = weights;
    for (const Run *run = row.runs, *const end = run + row.run_count; run != end; run++) {
      const char *a = row.a + pixel * BLOCK + run->offset;
      int words = run->words;
      do {
        multiply_word<W>(acc, a, w);
        a += 4;
        w += NV * W::LANES * 4;
      } while (--words);
    }
    store(acc, row, pixel);
  }

  template <int P>
  void last_tile(const GemmCall &row, int64_t pixel) const {
    if constexpr (P > 0) {
      if (row.pixels - pixel == P) return tile<P>(row, pixel);
      last_tile<P - 1>(row, pixel);
    }
  }

  template <int P>
  void rows_of_tiles(const GemmCall &call) const {
    GemmCall row = call;
    for (int64_t y = 0; y < call.rows; y++) {
      int64_t pixel = 0;
      for (; pixel + P <= row.pixels; pixel += P) tile<P>(row, pixel);
      last_tile<P - 1>(row, pixel);
      row.a += call.a_row, row.out += call.out_row, row.residual += call.out_row;
    }
  }
};

// What gemm.h asks for. Of the tiles, those of 7 pixels fit what 224 becomes on its way down, those of 8 leave no
// lane of an epilogue empty, and those of 4 leave the processor room to do it beside the next tile's products, if
// the weights stay in the first cache.
template <class W>
struct GemmBytes {
  using Acc = typename W::Vector;
  using Weight = Acc;
  static constexpr int LANES = W::LANES, MAX_PIXELS = 7, WORD_BYTES = 4, FEW_WORDS = 128;
  static Acc init(const void *bias, int channel) { return load(static_cast<const char *>(bias) + channel * 4); }
  static Acc zero() { return Acc{}; }
  static Acc sum(Acc a, Acc b) { return W::sum(a, b); }
  static Weight load(const char *p) { return W::load(p); }
  static Acc word(const char *a) { return W::broadcast(a); }
  static void mac(Acc &acc, Weight w, Acc word) { dot_product(acc, word, w); }
  template <int P, int NV>
  static inline __attribute__((always_inline)) void finish(Acc (&acc)[1][NV], const GemmCall &call, int channel,
                                                           int64_t) {
    GemmPanel<W, NV, false>(call, channel).template store<1>(acc, call, 0);
  }
  template <int NV>
  static void many_pixels(const GemmCall &call, int channel) {
    if (Finish(*call.epilogue).plain())
      panel(GemmPanel<W, NV, true>(call, channel), call);
    else
      panel(GemmPanel<W, NV, false>(call, channel), call);
  }
  template <class Tiles>
  static void panel(const Tiles &tiles, const GemmCall &call) {
    if (Tiles::VECTORS == 2 && call.words <= FEW_WORDS && call.pixels % 4 == 0)
      tiles.template rows_of_tiles<4>(call);
    else if (call.pixels % 7 == 0 && call.pixels % 8)
      tiles.template rows_of_tiles<7>(call);
    else
      tiles.template rows_of_tiles<8>(call);
  }
};
struct GemmU8 : GemmBytes<Wide> {
  using Half = GemmBytes<Narrow>;
};

}  // namespace mobilenet::avx512vnni
