// Resampling along one axis of a picture: which source pixels an output pixel reads, and their weights.
#pragma once

#include <cstdint>
#include <vector>

#include "picture.h"

namespace mobilenet {

// The part of a source axis that fills an output axis, in float64 as preprocess.py computes it.
struct Window {
  double start, end;
};

class Axis {
 public:
  Axis(int64_t source, Window window, int64_t size, int interpolation);

  bool weighted() const { return filter_ != nullptr; }  // if not, each output pixel is one source pixel
  int64_t size() const { return int64_t(first_.size()); }
  int64_t first(int64_t x) const { return first_[x]; }
  int64_t count(int64_t x) const { return count_[x]; }
  int64_t most() const;  // the highest count

  // The weights of output pixel x, count(x) of them, with 22 binary places.
  void weights(int64_t x, int32_t *fixed) const;

 private:
  void nearest();
  void filter(int interpolation);
  double weight(int64_t x, int64_t tap) const;

  double start_ = 0, scale_ = 1, stretch_ = 1, radius_ = 0;
  double (*filter_)(double) = nullptr;
  int64_t source_;
  std::vector<int32_t> first_, count_;
};

// Where a picture's resampled window lands in the network's input: all of it, but for the borders of "pad".
struct Placement {
  Window across, down;
  int64_t left = 0, top = 0, width, height;
};
Placement place(const mobilenet_preprocessing &rule, int64_t height, int64_t width);

}  // namespace mobilenet
