// float64 arithmetic that has to give the same bits everywhere: it is compiled with -ffp-contract=off.
#include "picture_axis.h"

#include <algorithm>
#include <cmath>
#include <numeric>

namespace mobilenet {
namespace {

double box(double t) { return t > -0.5 && t <= 0.5 ? 1.0 : 0.0; }

double bilinear(double t) { return std::max(0.0, 1.0 - std::fabs(t)); }

double bicubic(double t) {
  constexpr double a = -0.5;
  t = std::fabs(t);
  if (t < 1.0) return ((a + 2.0) * t - (a + 3.0)) * t * t + 1;
  return t < 2.0 ? (((t - 5) * t + 8) * t - 4) * a : 0.0;
}

double sinc(double t) {
  if (t == 0.0) return 1.0;
  t *= 3.14159265358979323846;
  return std::sin(t) / t;
}

double lanczos(double t) { return t >= -3.0 && t < 3.0 ? sinc(t) * sinc(t / 3) : 0.0; }

struct Filter {
  double radius;
  double (*function)(double);
};

Filter filter_of(int interpolation) {
  switch (interpolation) {
    case MOBILENET_BOX: return {0.5, box};
    case MOBILENET_BILINEAR: return {1.0, bilinear};
    case MOBILENET_BICUBIC: return {2.0, bicubic};
    default: return {3.0, lanczos};
  }
}

Window centred(int64_t source, double side, double fraction) {
  const double window = side * fraction;
  const double start = (double(source) - window) / 2;
  return {start, std::min(start + window, double(source))};
}

// a * b / c rounded half up, at least 1.
int64_t fitted(int64_t a, int64_t b, int64_t c) { return std::max<int64_t>(1, (2 * a * b + c) / (2 * c)); }

Placement padded(const mobilenet_preprocessing &rule, int64_t height, int64_t width) {
  Placement to{{0.0, double(width)}, {0.0, double(height)}, 0, 0, rule.width, rule.height};
  if (width * rule.height >= height * rule.width) {
    to.height = fitted(height, rule.width, width);
  } else {
    to.width = fitted(width, rule.height, height);
  }
  to.left = (rule.width - to.width) / 2;
  to.top = (rule.height - to.height) / 2;
  return to;
}

}  // namespace

Axis::Axis(int64_t source, Window window, int64_t size, int interpolation) : source_(source) {
  const float start = float(window.start), end = float(window.end);
  first_.resize(size);
  count_.assign(size, 1);
  if (size == source && start == 0 && end == float(source)) {
    std::iota(first_.begin(), first_.end(), 0);
    return;
  }
  start_ = start;
  scale_ = double(end - start) / double(size);
  if (interpolation == MOBILENET_NEAREST) {
    nearest();
  } else {
    filter(interpolation);
  }
}

void Axis::nearest() {
  double place = start_ + scale_ * 0.5;
  for (int32_t &first : first_) {
    first = int32_t(std::clamp<int64_t>(int64_t(std::floor(place)), 0, source_ - 1));
    place += scale_;
  }
}

void Axis::filter(int interpolation) {
  const Filter chosen = filter_of(interpolation);
  stretch_ = std::max(scale_, 1.0);
  radius_ = chosen.radius;
  filter_ = chosen.function;
  const double support = radius_ * stretch_;
  for (size_t x = 0; x < first_.size(); ++x) {
    const double centre = start_ + (double(x) + 0.5) * scale_;
    const int64_t first = std::max<int64_t>(0, int64_t(centre - support + 0.5));
    const int64_t last = std::min(source_, int64_t(centre + support + 0.5));
    first_[x] = int32_t(std::min(first, source_ - 1));
    count_[x] = int32_t(std::clamp<int64_t>(last - first_[x], 1, source_ - first_[x]));
  }
}

int64_t Axis::most() const { return *std::max_element(count_.begin(), count_.end()); }

double Axis::weight(int64_t x, int64_t tap) const {
  const double centre = start_ + (double(x) + 0.5) * scale_;
  return filter_((double(tap + first_[x]) - centre + 0.5) * (1.0 / stretch_));
}

void Axis::weights(int64_t x, int32_t *fixed) const {
  constexpr int KEPT = 64;  // weights past these are computed twice, so that long filters need no memory
  double kept[KEPT], sum = 0;
  const int64_t count = count_[x];
  for (int64_t tap = 0; tap < count; ++tap) {
    const double w = weight(x, tap);
    if (tap < KEPT) kept[tap] = w;
    sum += w;
  }
  for (int64_t tap = 0; tap < count; ++tap) {
    double w = tap < KEPT ? kept[tap] : weight(x, tap);
    if (sum != 0) w /= sum;
    fixed[tap] = int32_t(w < 0 ? w * (1 << 22) - 0.5 : w * (1 << 22) + 0.5);
  }
}

Placement place(const mobilenet_preprocessing &rule, int64_t height, int64_t width) {
  if (rule.resize == MOBILENET_PAD) return padded(rule, height, width);
  double across = double(width), down = double(height);
  if (rule.resize == MOBILENET_CROP) {
    if (width * rule.height > height * rule.width) {
      across = double(height * rule.width) / double(rule.height);
    } else {
      down = double(width * rule.height) / double(rule.width);
    }
  }
  const Window horizontal = centred(width, across, rule.crop_fraction);
  return {horizontal, centred(height, down, rule.crop_fraction), 0, 0, rule.width, rule.height};
}

}  // namespace mobilenet
