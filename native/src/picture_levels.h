// The last step of the picture path: resampled pixels to a network's input, through a table for each channel.
#pragma once

#include <cstddef>
#include <cstdint>

#include "picture.h"

namespace mobilenet {

class Levels {
 public:
  Levels(const mobilenet_preprocessing &rule, const void *table, int32_t entry_size, void *output);

  // Columns x .. x + count - 1 of output row y from pixels of 4 bytes.
  void write(int64_t y, int64_t x, int64_t count, const uint8_t *pixels) const;
  // The same columns in one grey.
  void fill(int64_t y, int64_t x, int64_t count, uint8_t level) const;

 private:
  template <typename Entry>
  void write_entries(const uint8_t *pixels, int64_t count, uint8_t *out) const;
  void write_bytes(const uint8_t *pixels, int64_t count, uint8_t *out) const;
  uint8_t *at(int64_t y, int64_t x) const;

  int channels_;
  int32_t entry_size_;
  int64_t width_;
  bool plain_ = false;  // the pixels as they are
  int red_, blue_;  // which byte of a pixel the first and the last channel are
  uint8_t *output_;
  const uint8_t *table_;
  uint8_t same_[3 * 256];
};

}  // namespace mobilenet
