#include "picture_levels.h"

#include <cstring>

namespace mobilenet {
namespace {

uint8_t luma(const uint8_t *pixel) {
  return uint8_t((19595u * pixel[0] + 38470u * pixel[1] + 7471u * pixel[2] + 32768u) >> 16);
}

}  // namespace

Levels::Levels(const mobilenet_preprocessing &rule, const void *table, int32_t entry_size, void *output)
    : channels_(rule.channels == MOBILENET_L ? 1 : 3),
      entry_size_(entry_size),
      width_(rule.width),
      red_(rule.channels == MOBILENET_BGR ? 2 : 0),
      blue_(2 - red_),
      output_(static_cast<uint8_t *>(output)),
      table_(static_cast<const uint8_t *>(table)) {
  if (table) return;
  for (int i = 0; i < 3 * 256; ++i) same_[i] = uint8_t(i);
  table_ = same_;
  plain_ = rule.channels == MOBILENET_RGB;
}

uint8_t *Levels::at(int64_t y, int64_t x) const { return output_ + (y * width_ + x) * channels_ * entry_size_; }

// Three bytes of a pixel as one store of four: the fourth is overwritten by the pixel after it, so the last pixel
// goes byte by byte.
void Levels::write_bytes(const uint8_t *pixels, int64_t count, uint8_t *out) const {
  if (plain_) {
    for (int64_t x = 0; x + 1 < count; ++x) std::memcpy(out + 3 * x, pixels + 4 * x, 4);
    std::memcpy(out + 3 * (count - 1), pixels + 4 * (count - 1), 3);
    return;
  }
  const uint8_t *first = table_, *second = table_ + 256, *third = table_ + 512;
  int64_t x = 0;
  for (; x + 1 < count; ++x) {
    const uint8_t *p = pixels + 4 * x;
    const uint32_t word = first[p[red_]] | uint32_t(second[p[1]]) << 8 | uint32_t(third[p[blue_]]) << 16;
    std::memcpy(out + 3 * x, &word, sizeof word);
  }
  const uint8_t *p = pixels + 4 * x;
  out[3 * x] = first[p[red_]], out[3 * x + 1] = second[p[1]], out[3 * x + 2] = third[p[blue_]];
}

template <typename Entry>
void Levels::write_entries(const uint8_t *pixels, int64_t count, uint8_t *out) const {
  const uint8_t *bytes = table_;
  const auto entry = [bytes](int channel, uint8_t level) {
    Entry value;  // tables may lie at any address
    std::memcpy(&value, bytes + (256 * channel + level) * sizeof value, sizeof value);
    return value;
  };
  for (int64_t x = 0; x < count; ++x, pixels += 4) {
    if (channels_ == 1) {
      const Entry value = entry(0, luma(pixels));
      std::memcpy(out + x * sizeof value, &value, sizeof value);
      continue;
    }
    const Entry values[3] = {entry(0, pixels[red_]), entry(1, pixels[1]), entry(2, pixels[blue_])};
    std::memcpy(out + x * sizeof values, values, sizeof values);
  }
}

void Levels::write(int64_t y, int64_t x, int64_t count, const uint8_t *pixels) const {
  uint8_t *out = at(y, x);
  if (entry_size_ == 4) return write_entries<uint32_t>(pixels, count, out);
  if (channels_ == 1) return write_entries<uint8_t>(pixels, count, out);
  write_bytes(pixels, count, out);
}

void Levels::fill(int64_t y, int64_t x, int64_t count, uint8_t level) const {
  const uint8_t grey[4] = {level, level, level, 0};
  for (int64_t i = 0; i < count; ++i) write(y, x + i, 1, grey);
}

}  // namespace mobilenet
