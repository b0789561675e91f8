// A picture's way to a network's input; src/mobilenet/pictures/preprocess.py says what is computed, bit for bit.
#pragma once

#include <cstdint>

#include "../include/mobilenet.h"

namespace mobilenet {

// A call of the columns' kernel: out[x] = sum over taps of row[first[x] + tap] * weights[x][tap].
// Pixels have 4 bytes. 4 pixels are made at a time: `first`, `weights` and `out` go on to a multiple of 4 columns.
struct ColumnsCall {
  const uint8_t *row;
  const int32_t *first;
  const int32_t *weights;  // [columns][taps][4], the same for a pixel's 4 bytes
  int64_t taps;            // a multiple of 4; row[first[x] + taps - 1] is there for every x
  int64_t columns;
  uint8_t *out;
};

// A call of the rows' kernel: out[byte] = sum over taps of row[tap][byte] * weights[tap].
struct RowsCall {
  const uint8_t *base;  // rows are `stride` bytes apart, in a ring of `capacity` rows
  int64_t stride, capacity;
  int64_t start;        // the first tap's row
  const int32_t *weights;
  int64_t taps;
  int64_t bytes;
  uint8_t *out;
};

// The loops of resampling for one instruction set (kernels/resample.h). Sums are int32, weights have 22 binary
// places, results are rounded half up and clamped to 0 .. 255: the same on every instruction set.
struct PictureKernels {
  void (*columns)(const ColumnsCall &call);
  void (*rows)(const RowsCall &call);
};

// By the name of an instruction set; nullptr: the best of this processor. Returns nullptr if this build does not
// have it or this processor cannot run it.
const PictureKernels *find_picture_kernels(const char *isa);

// mobilenet_preprocess with these kernels; throws Failure or std::bad_alloc.
void preprocess(const mobilenet_preprocessing &rule, const uint8_t *pixels, int64_t height, int64_t width,
                int64_t stride, const void *table, int32_t entry_size, void *output,
                const PictureKernels &kernels);

}  // namespace mobilenet
