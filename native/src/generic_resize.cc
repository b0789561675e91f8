// Resampling of pictures, nearest and bilinear, of floats and of integers (rule 7 of reference_integer.py). The
// parts of a call are rows of the output.
#include "generic_rules.h"

namespace mobilenet::generic {
namespace {

constexpr int WEIGHT_BITS = 11;  // of an integer interpolation weight

// Where one output place reads along an axis: the exact fraction numerator / denominator, within 0..size - 1.
struct Position {
  int64_t numerator, denominator;
  int64_t index() const { return numerator / denominator; }
  int64_t rest() const { return numerator % denominator; }
};
Position position(const Operator &op, int64_t i, int64_t size, int64_t target) {
  Position p{i * size, target};
  if (op.align_corners && target > 1) p = {i * (size - 1), target - 1};
  else if (op.half_pixel_centers) p = {(2 * i + 1) * size - target, 2 * target};
  p.numerator = std::min(std::max(p.numerator, int64_t(0)), (size - 1) * p.denominator);
  return p;
}

int64_t nearest_index(const Operator &op, int64_t i, int64_t size, int64_t target) {
  if (op.align_corners && target > 1) return (2 * i * (size - 1) + target - 1) / (2 * (target - 1));
  if (op.half_pixel_centers) return std::min((2 * i + 1) * size / (2 * target), size - 1);
  return std::min(i * size / target, size - 1);
}

// How float interpolation mixes two neighbours.
struct FloatMix {
  using Value = float;
  static float weight(Position p) { return float(double(p.rest()) / double(p.denominator)); }
  static float mix(float low, float high, float weight) { return low + (high - low) * weight; }
};

// How integer interpolation does: every mix multiplies by 2^11, which the last step takes away.
struct IntegerMix {
  using Value = int32_t;
  static int32_t weight(Position p) {
    return int32_t(((p.rest() << (WEIGHT_BITS + 1)) + p.denominator) / (2 * p.denominator));
  }
  static int32_t mix(int32_t low, int32_t high, int32_t weight) {
    return low * ((1 << WEIGHT_BITS) - weight) + high * weight;
  }
};

// The columns that the output's columns read, and with which weights.
template <class Value>
struct Columns {
  int64_t *low, *high;  // offsets of the pixels in a row
  Value *weights;
};

template <class Mix>
Columns<typename Mix::Value> columns_of(const Call &call, Scratch &scratch) {
  const int64_t size = call.type().shape[1], target = call.out().shape[1], channels = call.out().shape[2];
  Columns<typename Mix::Value> columns{scratch.take<int64_t>(target), scratch.take<int64_t>(target),
                                       scratch.take<typename Mix::Value>(target)};
  for (int64_t x = 0; x < target; ++x) {
    const Position p = position(call.op(), x, size, target);
    columns.low[x] = p.index() * channels;
    columns.high[x] = std::min(p.index() + 1, size - 1) * channels;
    columns.weights[x] = Mix::weight(p);
  }
  return columns;
}

template <class Mix, class T, class Read>
void mix_across(const T *__restrict row, const Columns<typename Mix::Value> &columns, int64_t width,
                int64_t channels, const Read &read, typename Mix::Value *__restrict out) {
  for (int64_t x = 0; x < width; ++x, out += channels) {
    const T *low = row + columns.low[x], *high = row + columns.high[x];
    const auto weight = columns.weights[x];
    for (int64_t c = 0; c < channels; ++c) out[c] = Mix::mix(read(low[c]), read(high[c]), weight);
  }
}

// The two rows of the input that an output row lies between.
struct Between {
  int64_t low, high;
  Position at;
};
Between rows_between(const Call &call, int64_t y) {
  const int64_t size = call.type().shape[0];
  const Position at = position(call.op(), y, size, call.out().shape[0]);
  return {at.index(), std::min(at.index() + 1, size - 1), at};
}

// First down, then across.
void float_bilinear(const Call &call) {
  const Shape &in = call.type().shape, &out = call.out().shape;
  const int64_t length = in[1] * in[2];
  Scratch scratch(call);
  const Columns<float> columns = columns_of<FloatMix>(call, scratch);
  float *mixed = scratch.take<float>(length);
  for (int64_t y = call.first; y < call.last; ++y) {
    const Between rows = rows_between(call, y);
    const float *low = call.input<float>() + rows.low * length, *high = call.input<float>() + rows.high * length;
    const float weight = FloatMix::weight(rows.at);
    for (int64_t i = 0; i < length; ++i) mixed[i] = FloatMix::mix(low[i], high[i], weight);
    float *result = call.result<float>() + y * out[1] * out[2];
    mix_across<FloatMix>(mixed, columns, out[1], out[2], [](float x) { return x; }, result);
  }
}

// First across, then down. Rows that have been mixed across are kept, as the next output row often needs them too.
void integer_bilinear(const Call &call) {
  const Shape &in = call.type().shape, &out = call.out().shape;
  const int64_t length = out[1] * out[2];
  const Stored given = stored(call.out().dtype, 0);
  Scratch scratch(call);
  const Columns<int32_t> columns = columns_of<IntegerMix>(call, scratch);
  int32_t *mixed[2] = {scratch.take<int32_t>(length), scratch.take<int32_t>(length)};
  int64_t kept[2] = {-1, -1};
  const auto across = [&](int64_t row) {  // row r is kept in place r % 2, so that two neighbours find room
    if (kept[row % 2] != row)
      mix_across<IntegerMix>(call.input<uint8_t>() + row * in[1] * in[2], columns, out[1], out[2], given,
                             mixed[row % 2]);
    kept[row % 2] = row;
    return mixed[row % 2];
  };
  for (int64_t y = call.first; y < call.last; ++y) {
    const Between rows = rows_between(call, y);
    const int32_t *low = across(rows.low), *high = across(rows.high), weight = IntegerMix::weight(rows.at);
    uint8_t *result = call.result<uint8_t>() + y * length;
    constexpr int32_t half = 1 << (2 * WEIGHT_BITS - 1);
    for (int64_t i = 0; i < length; ++i)
      result[i] = uint8_t((IntegerMix::mix(low[i], high[i], weight) + half) >> (2 * WEIGHT_BITS));
  }
}

void nearest_neighbour(const Call &call) {
  const Shape &in = call.type().shape, &out = call.out().shape;
  const size_t pixel = size_t(out[2]) * size_of(call.out().dtype);
  Scratch scratch(call);
  int64_t *offsets = scratch.take<int64_t>(out[1]);
  for (int64_t x = 0; x < out[1]; ++x) offsets[x] = nearest_index(call.op(), x, in[1], out[1]) * int64_t(pixel);
  char *result = call.result<char>() + size_t(call.first * out[1]) * pixel;
  for (int64_t y = call.first; y < call.last; ++y) {
    const char *row = call.input<char>() + size_t(nearest_index(call.op(), y, in[0], out[0]) * in[1]) * pixel;
    for (int64_t x = 0; x < out[1]; ++x, result += pixel) std::memcpy(result, row + offsets[x], pixel);
  }
}

}  // namespace

size_t resize_scratch(const Graph &graph, const Node &node) {
  const Shape &in = graph.type(node.inputs[0]).shape, &out = node.type.shape;
  const size_t offsets = aligned(size_t(out[1]) * 8), weights = aligned(size_t(out[1]) * 4);
  if (node.op.nearest) return offsets;
  const bool integer = is_integer(node.type.dtype);
  const size_t rows = integer ? 2 * aligned(size_t(out[1] * out[2]) * 4) : aligned(size_t(in[1] * in[2]) * 4);
  return 2 * offsets + weights + rows;
}

void resize(const Call &call) {
  if (call.op().nearest) nearest_neighbour(call);
  else if (is_integer(call.out().dtype)) integer_bilinear(call);
  else float_bilinear(call);
}

}  // namespace mobilenet::generic
