// Resampling along a row and across rows, for pixels of 8 bits and weights of 22 binary places.
#pragma once

#include "../picture.h"
#include "resample_vectors.h"

namespace mobilenet::MOBILENET_ISA {
namespace resampling {

constexpr int PRECISION = 22;
constexpr int32_t HALF = 1 << (PRECISION - 1);

static inline void finish(Sums &sums, uint8_t *out) {
  for (Lanes &part : sums.part) part = (part + HALF) >> PRECISION;
  store(sums, out);
}

// 4 columns, a vector for 4 taps of each; the taps are added up for all four together.
template <int TAPS>  // 0: any number
static inline void columns_of(const ColumnsCall &call) {
  const int64_t taps = TAPS ? TAPS : call.taps;
  const int32_t *weights = call.weights;
  for (int64_t x = 0; x < call.columns; x += 4) {
    Sums sums[4];
    for (int i = 0; i < 4; ++i) {
      const uint8_t *pixel = call.row + 4 * int64_t(call.first[x + i]);
      clear(sums[i]);
      for (int64_t tap = 0; tap < taps; tap += 4, weights += 16) {
        Sums bytes;
        load(pixel + 4 * tap, bytes);
        multiply_add(sums[i], bytes, weights);
      }
    }
    Sums four;
    add_quarters(sums, four);
    finish(four, call.out + 4 * x);
  }
}

static void columns(const ColumnsCall &call) {
  if (call.taps == 4) return columns_of<4>(call);
  if (call.taps == 8) return columns_of<8>(call);
  columns_of<0>(call);
}

template <int VECTORS>
static inline void rows_of(const RowsCall &call, int64_t byte) {
  Sums sums[VECTORS];
  for (Sums &sum : sums) clear(sum);
  int64_t row = call.start;
  for (int64_t tap = 0; tap < call.taps; ++tap) {
    const uint8_t *p = call.base + row * call.stride + byte;
    for (int i = 0; i < VECTORS; ++i) {
      Sums bytes;
      load(p + 16 * i, bytes);
      multiply_add(sums[i], bytes, call.weights[tap]);
    }
    row = row + 1 == call.capacity ? 0 : row + 1;
  }
  for (int i = 0; i < VECTORS; ++i) finish(sums[i], call.out + byte + 16 * i);
}

// The last bytes of rows that are no multiple of 16: of very tall pictures, which may be narrow.
static void rows_tail(const RowsCall &call, int64_t byte) {
  uint32_t sums[16] = {};  // a sum may pass through what int32 holds
  const int64_t count = call.bytes - byte;
  int64_t row = call.start;
  for (int64_t tap = 0; tap < call.taps; ++tap) {
    const uint8_t *p = call.base + row * call.stride + byte;
    for (int64_t i = 0; i < count; ++i) sums[i] += p[i] * uint32_t(call.weights[tap]);
    row = row + 1 == call.capacity ? 0 : row + 1;
  }
  for (int64_t i = 0; i < count; ++i) {
    const int32_t level = int32_t(sums[i] + HALF) >> PRECISION;
    call.out[byte + i] = uint8_t(level < 0 ? 0 : level > 255 ? 255 : level);
  }
}

static void rows(const RowsCall &call) {
  int64_t byte = 0;
  for (; byte + 32 <= call.bytes; byte += 32) rows_of<2>(call, byte);
  for (; byte + 16 <= call.bytes; byte += 16) rows_of<1>(call, byte);
  if (byte < call.bytes) rows_tail(call, byte);
}

}  // namespace resampling

inline constexpr PictureKernels picture_kernels = {resampling::columns, resampling::rows};

}  // namespace mobilenet::MOBILENET_ISA
