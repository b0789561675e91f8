// The picture path: window, resampling along the axes, borders, levels; in one pass that keeps a few rows.
#include "picture.h"

#include <algorithm>
#include <cstring>
#include <new>
#include <vector>

#include "guarded.h"
#include "picture_axis.h"
#include "picture_levels.h"

namespace mobilenet {
namespace {

constexpr int64_t MAX_SIDE = 16384;          // of a network's input
constexpr int64_t ROWS_FIRST = 50'000'000;   // pixels of an intermediate picture, see preprocess.py
constexpr int64_t STRIP_TAPS = 1 << 19;      // weights of a strip, of 16 bytes each
constexpr int64_t STRIP_BYTES = 32 << 20;    // resampled rows of a strip
constexpr int64_t GROUP = 4;                 // columns and taps that the columns' kernel takes at a time

int64_t grouped(int64_t count) { return (count + GROUP - 1) / GROUP * GROUP; }

struct Source {
  const uint8_t *pixels;
  int64_t height, width, stride, pixel_bytes;
  const uint8_t *row(int64_t y) const { return pixels + y * stride; }
};

// Pixels of 3 or 4 bytes to pixels of 4. Where 3 are copied as 4, the last pixel must not read past its end.
void widen(const uint8_t *from, int64_t pixel_bytes, int64_t count, uint8_t *to) {
  if (pixel_bytes == 4) {
    std::memcpy(to, from, size_t(4 * count));
    return;
  }
  for (int64_t x = 0; x + 1 < count; ++x) std::memcpy(to + 4 * x, from + 3 * x, 4);
  if (count > 0) std::memcpy(to + 4 * (count - 1), from + 3 * (count - 1), 3);
}

// Output columns first .. last - 1: their weights, and the rows that are at work. For a picture of the usual size
// one strip is all of it; narrower ones bound the memory for pictures of millions of rows or columns.
class Strip {
 public:
  Strip(const Source &source, const Axis &across, const Axis &down, const PictureKernels &kernels, int64_t first,
        int64_t last, bool rows_first);

  // Output row y, 4 bytes a pixel. Rows are asked for from top to bottom.
  const uint8_t *row(int64_t y) { return rows_first_ ? row_by_rows(y) : row_by_columns(y); }

 private:
  void prepare_weights();
  const uint8_t *row_by_columns(int64_t y);
  const uint8_t *row_by_rows(int64_t y);
  void resample(int64_t y, uint8_t *out);
  template <int PIXEL_BYTES>
  void choose(const uint8_t *row, uint8_t *out) const;
  void combine(const uint8_t *base, int64_t stride, int64_t capacity, int64_t y, int64_t bytes, uint8_t *out);

  const Source &source_;
  const Axis &across_, &down_;
  const PictureKernels &kernels_;
  int64_t first_, last_;
  bool rows_first_;
  bool direct_;           // the columns' kernel reads the picture itself
  int64_t begin_, end_;   // source columns
  int64_t taps_ = 0;
  int64_t row_bytes_;     // of a resampled row
  int64_t capacity_ = 1;  // rows of the ring
  int64_t next_ = 0;      // the first source row that was not yet asked for
  std::vector<int32_t> firsts_, weights_, row_weights_;
  std::vector<uint8_t> ring_, wide_, combined_, out_;
};

Strip::Strip(const Source &source, const Axis &across, const Axis &down, const PictureKernels &kernels,
             int64_t first, int64_t last, bool rows_first)
    : source_(source), across_(across), down_(down), kernels_(kernels), first_(first), last_(last),
      rows_first_(rows_first), begin_(across.first(first)), end_(begin_),
      row_bytes_(4 * grouped(last - first)) {
  for (int64_t x = first; x < last; ++x) {
    taps_ = std::max(taps_, grouped(across.count(x)));
    end_ = std::max(end_, across.first(x) + across.count(x));
  }
  direct_ = !rows_first && source.pixel_bytes == 4 && source.width >= taps_;
  if (down.weighted()) row_weights_.resize(size_t(down.most()));
  if (across.weighted()) prepare_weights();
  if (across.weighted() && !direct_) wide_.resize(size_t(4 * (end_ - begin_ + taps_)));
  if (rows_first) combined_.resize(size_t((end_ - begin_) * source.pixel_bytes));
  if (!rows_first) capacity_ = down.most();
  if (!rows_first) ring_.resize(size_t(capacity_ * row_bytes_));
  out_.resize(size_t(row_bytes_));
}

// Each column gets as many taps as the longest has; where they would pass the picture's right edge they begin
// further left, with weights of 0.
void Strip::prepare_weights() {
  const int64_t columns = last_ - first_;
  firsts_.resize(size_t(grouped(columns)));
  weights_.assign(size_t(grouped(columns) * taps_ * 4), 0);
  std::vector<int32_t> column(size_t(taps_), 0);
  for (int64_t x = 0; x < columns; ++x) {
    const int64_t first = across_.first(first_ + x);
    const int64_t from = direct_ ? std::min(first, source_.width - taps_) : first - begin_;
    firsts_[x] = int32_t(from);
    across_.weights(first_ + x, column.data());
    int32_t *weights = &weights_[(x * taps_ + (direct_ ? first - from : 0)) * 4];
    for (int64_t i = 0; i < across_.count(first_ + x) * 4; ++i) weights[i] = column[i / 4];
  }
}

template <int PIXEL_BYTES>
void Strip::choose(const uint8_t *row, uint8_t *out) const {
  for (int64_t x = first_; x < last_; ++x, out += 4) {
    std::memcpy(out, row + (across_.first(x) - begin_) * PIXEL_BYTES, PIXEL_BYTES);
  }
}

// Source row y (or the row in combined_) to this strip's columns.
void Strip::resample(int64_t y, uint8_t *out) {
  const int64_t bytes = source_.pixel_bytes;
  const uint8_t *row = rows_first_ ? combined_.data() : source_.row(y) + begin_ * bytes;
  if (!across_.weighted()) return bytes == 4 ? choose<4>(row, out) : choose<3>(row, out);
  if (!direct_) widen(row, bytes, end_ - begin_, wide_.data());
  const uint8_t *wide = direct_ ? source_.row(y) : wide_.data();
  kernels_.columns({wide, firsts_.data(), weights_.data(), taps_, last_ - first_, out});
}

void Strip::combine(const uint8_t *base, int64_t stride, int64_t capacity, int64_t y, int64_t bytes,
                    uint8_t *out) {
  down_.weights(y, row_weights_.data());
  const int64_t start = down_.first(y) % capacity;
  kernels_.rows({base, stride, capacity, start, row_weights_.data(), down_.count(y), bytes, out});
}

const uint8_t *Strip::row_by_columns(int64_t y) {
  const int64_t first = down_.first(y), last = first + down_.count(y);
  for (next_ = std::max(next_, first); next_ < last; ++next_) {
    resample(next_, ring_.data() + next_ % capacity_ * row_bytes_);
  }
  if (!down_.weighted()) return ring_.data() + first % capacity_ * row_bytes_;
  combine(ring_.data(), row_bytes_, capacity_, y, row_bytes_, out_.data());
  return out_.data();
}

const uint8_t *Strip::row_by_rows(int64_t y) {
  const int64_t bytes = int64_t(combined_.size());
  const uint8_t *base = source_.pixels + begin_ * source_.pixel_bytes;
  if (down_.weighted()) {
    combine(base, source_.stride, source_.height, y, bytes, combined_.data());
  } else {
    std::memcpy(combined_.data(), base + down_.first(y) * source_.stride, size_t(bytes));
  }
  resample(0, out_.data());
  return out_.data();
}

int64_t strip_columns(const Axis &across, const Axis &down, bool rows_first) {
  const int64_t by_weights = STRIP_TAPS / grouped(across.most());
  const int64_t by_rows = rows_first ? across.size() : STRIP_BYTES / (4 * down.most());
  return std::clamp(grouped(std::min(by_weights, by_rows)), GROUP, grouped(across.size()));
}

void borders(const mobilenet_preprocessing &rule, const Placement &to, const Levels &levels) {
  for (int64_t y = 0; y < rule.height; ++y) {
    const bool inside = y >= to.top && y < to.top + to.height;
    const int64_t left = inside ? to.left : rule.width, right = to.left + to.width;
    levels.fill(y, 0, left, uint8_t(rule.fill));
    if (inside) levels.fill(y, right, rule.width - right, uint8_t(rule.fill));
  }
}

void check_rule(const mobilenet_preprocessing &rule) {
  const auto bad = [](const char *field, int64_t value, const char *accepted) {
    fail(MOBILENET_BAD_ARGUMENT, "preprocessing: %s is %s, not %lld", field, accepted, (long long)value);
  };
  const auto check = [&](const char *field, int64_t value, int64_t low, int64_t high, const char *accepted) {
    if (value < low || value > high) bad(field, value, accepted);
  };
  check("height", rule.height, 1, MAX_SIDE, "1 to 16384");
  check("width", rule.width, 1, MAX_SIDE, "1 to 16384");
  check("resize", rule.resize, MOBILENET_CROP, MOBILENET_PAD, "MOBILENET_CROP, _STRETCH or _PAD");
  check("interpolation", rule.interpolation, MOBILENET_NEAREST, MOBILENET_LANCZOS,
        "MOBILENET_NEAREST .. _LANCZOS");
  check("channels", rule.channels, MOBILENET_RGB, MOBILENET_L, "MOBILENET_RGB, _BGR or _L");
  check("fill", rule.fill, 0, 255, "0 to 255");
  check("pixel_bytes", rule.pixel_bytes, 3, 4, "3 or 4");
  if (!(rule.crop_fraction >= 1e-6 && rule.crop_fraction <= 1)) {
    fail(MOBILENET_BAD_ARGUMENT, "preprocessing: crop_fraction is 1e-6 to 1, not %g", rule.crop_fraction);
  }
}

void check_picture(const Source &source, const void *table, int32_t entry_size, const void *output) {
  constexpr int64_t most = INT32_MAX;
  if (source.height < 1 || source.width < 1 || source.height > most || source.width > most) {
    fail(MOBILENET_BAD_ARGUMENT, "a picture has 1 to %lld rows and columns, not %lld x %lld", (long long)most,
         (long long)source.height, (long long)source.width);
  }
  if (source.stride < source.width * source.pixel_bytes || source.stride > INT64_MAX / source.height) {
    fail(MOBILENET_BAD_ARGUMENT, "rows of %lld pixels of %lld bytes cannot be %lld bytes apart",
         (long long)source.width, (long long)source.pixel_bytes, (long long)source.stride);
  }
  if (entry_size != 1 && (entry_size != 4 || !table)) {
    fail(MOBILENET_BAD_ARGUMENT, "entries of the table have 1 or 4 bytes, and 1 where there is no table; not %d",
         int(entry_size));
  }
  if (!source.pixels || !output) fail(MOBILENET_BAD_ARGUMENT, "the picture and the output may not be NULL");
}

}  // namespace

void preprocess(const mobilenet_preprocessing &rule, const uint8_t *pixels, int64_t height, int64_t width,
                int64_t stride, const void *table, int32_t entry_size, void *output,
                const PictureKernels &kernels) {
  check_rule(rule);
  const Source source{pixels, height, width, stride, rule.pixel_bytes};
  check_picture(source, table, entry_size, output);
  const Placement to = place(rule, height, width);
  const Axis across(width, to.across, to.width, rule.interpolation);
  const Axis down(height, to.down, to.height, rule.interpolation);
  const Levels levels(rule, table, entry_size, output);
  const bool rows_first = to.width * height > ROWS_FIRST;
  const int64_t columns = strip_columns(across, down, rows_first);
  for (int64_t first = 0; first < to.width; first += columns) {
    const int64_t last = std::min(first + columns, to.width);
    Strip strip(source, across, down, kernels, first, last, rows_first);
    for (int64_t y = 0; y < to.height; ++y) {
      levels.write(to.top + y, to.left + first, last - first, strip.row(y));
    }
  }
  borders(rule, to, levels);
}

}  // namespace mobilenet

extern "C" int mobilenet_preprocess(const mobilenet_preprocessing *rule, const uint8_t *pixels, int64_t height,
                                    int64_t width, int64_t stride, const void *table, int32_t entry_size,
                                    void *output, char *error, size_t error_size) {
  using namespace mobilenet;
  try {
    if (!rule || rule->size != sizeof *rule) {
      fail(MOBILENET_BAD_ARGUMENT, "preprocessing: size is sizeof(mobilenet_preprocessing), %zu", sizeof *rule);
    }
    const PictureKernels *kernels = find_picture_kernels(rule->isa);
    if (!kernels) fail(MOBILENET_UNSUPPORTED, "this processor or build has no instruction set '%s'", rule->isa);
    preprocess(*rule, pixels, height, width, stride, table, entry_size, output, *kernels);
    return MOBILENET_OK;
  } catch (const Failure &failure) {
    return report(failure.code, failure.text.c_str(), error, error_size);
  } catch (const std::bad_alloc &) {
    return report(MOBILENET_NO_MEMORY, "there is not enough memory to resample the picture", error, error_size);
  } catch (const std::exception &unexpected) {  // std::length_error of a vector on a 32-bit machine
    return report(MOBILENET_NO_MEMORY, unexpected.what(), error, error_size);
  }
}
