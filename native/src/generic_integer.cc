// Integer operators on rows of the last axis (rules 2, 3, 5, 6 and 8 to 11 of reference_integer.py). The parts of
// a call are such rows, except for the mean's.
#include <cmath>

#include "generic.h"
#include "generic_rules.h"

namespace mobilenet::generic {

Range output_range(const Operator &op, const TensorType &output) {
  Range range = output.dtype == DType::int8 ? Range{-128, 127} : Range{0, 255};
  const int zero = output.zero_point;
  const bool six = op.activation == Activation::relu6;
  if (six || op.activation == Activation::relu) range.low = std::max(range.low, zero);
  if (six)
    range.high = std::min(range.high, zero + int(std::rint(std::min(double(6.0f / output.scale), 512.0))));
  return range;
}

bool add_factors(const TensorType &first, const TensorType &second, const TensorType &output,
                 AddFactors &factors) {
  const float a = first.scale / output.scale, b = second.scale / output.scale;
  int exponent = 0;
  std::frexp(std::max(a, b), &exponent);
  factors.shift = 20 - exponent + 1;
  if (!std::isfinite(a) || !std::isfinite(b) || factors.shift <= 12 || factors.shift > 30) return false;
  factors.first = int(std::rint(std::ldexp(a, factors.shift)));
  factors.second = int(std::rint(std::ldexp(b, factors.shift)));
  return true;
}

namespace {

struct Rows {
  int64_t length, begin, end;  // of a row; the elements of the call's rows
};
Rows rows(const Call &call) {
  const int64_t length = last_axis(call.type().shape);
  return {length, call.first * length, call.last * length};
}

int largest_byte(const uint8_t *x, int flip, int64_t count) {
  uint8_t largest = 0;
  for (int64_t i = 0; i < count; ++i) largest = std::max(largest, uint8_t(x[i] ^ flip));
  return largest;
}

// The sums of `count` channels of a picture, in int32 for as many pixels as that holds.
void channel_sums(const uint8_t *x, Stored stored, int64_t pixels, int64_t stride, int64_t count, int64_t *sums) {
  constexpr int64_t most = 1 << 20;
  std::fill(sums, sums + count, int64_t(0));
  for (int64_t start = 0; start < pixels; start += most) {
    int32_t part[MEAN_CHANNELS] = {};
    for (int64_t i = start; i < std::min(pixels, start + most); ++i, x += stride)
      for (int64_t c = 0; c < count; ++c) part[c] += stored(x[c]);
    for (int64_t c = 0; c < count; ++c) sums[c] += part[c];
  }
}

// Rule 10's table: how much a number weighs that lies d below the largest.
void softmax_table(const Call &call, double table[256]) {
  const double step = -call.op().beta * double(call.type().scale);
  for (int d = 0; d < 256; ++d) table[d] = std::rint(8388608.0 * std::exp(step * d));
}

}  // namespace

void integer_activation(const Call &call) {
  uint8_t table[256];
  activation_table(call.op().activation, call.type(), call.out(), table);
  const Rows part = rows(call);
  look_up(table, call.input<uint8_t>() + part.begin, call.result<uint8_t>() + part.begin, part.end - part.begin);
}

void integer_add(const Call &call) {
  AddFactors factors;
  if (!add_factors(call.type(), call.type(1), call.out(), factors)) return;  // generic_supports has refused it
  const Rows part = rows(call);
  const Range range = output_range(call.op(), call.out());
  const Stored first = stored(call.type()), second = stored(call.type(1));
  const uint8_t *a = call.input<uint8_t>(), *b = call.input<uint8_t>(1);
  uint8_t *out = call.result<uint8_t>();
  const int half = 1 << (factors.shift - 1), zero = call.out().zero_point;
  for (int64_t i = part.begin; i < part.end; ++i) {
    const int total = half + first(a[i]) * factors.first + second(b[i]) * factors.second;
    out[i] = uint8_t(std::min(std::max((total >> factors.shift) + zero, range.low), range.high));
  }
}

void integer_mul(const Call &call) {
  const Rows part = rows(call);
  const Requantiser requantise(call.op(), call.out());
  const float multiplier = call.type().scale * call.type(1).scale / call.out().scale;
  const Stored first = stored(call.type()), second = stored(call.type(1));
  BroadcastRows walk(call.type().shape, call.type(1).shape, call.first);
  for (int64_t at = part.begin; at < part.end; at += part.length, walk.advance()) {
    const uint8_t *a = call.input<uint8_t>() + at, *b = call.input<uint8_t>(1) + walk.offset();
    uint8_t *out = call.result<uint8_t>() + at;
    if (walk.step() == 1)
      for (int64_t i = 0; i < part.length; ++i) out[i] = requantise(float(first(a[i]) * second(b[i])), multiplier);
    else
      for (int64_t i = 0; i < part.length; ++i) out[i] = requantise(float(first(a[i]) * second(b[0])), multiplier);
  }
}

// The parts are groups of channels.
void integer_mean(const Call &call) {
  const Shape &in = call.type().shape;
  const Requantiser requantise(call.op(), call.out());
  const int64_t pixels = in[0] * in[1];
  const float multiplier = call.type().scale / (call.out().scale * float(pixels));
  for (int64_t group = call.first; group < call.last; ++group) {
    const int64_t c = group * MEAN_CHANNELS, count = std::min(in[2] - c, MEAN_CHANNELS);
    int64_t sums[MEAN_CHANNELS];
    channel_sums(call.input<uint8_t>() + c, stored(call.type()), pixels, in[2], count, sums);
    for (int64_t i = 0; i < count; ++i) call.result<uint8_t>()[c + i] = requantise(float(sums[i]), multiplier);
  }
}

void integer_softmax(const Call &call) {
  double table[256];
  softmax_table(call, table);
  const Rows part = rows(call);
  const int flip = stored(call.type()).flip, zero = call.out().zero_point;
  const double low = call.out().dtype == DType::int8 ? -128 : 0, high = low + 255;
  for (int64_t at = part.begin; at < part.end; at += part.length) {
    const uint8_t *x = call.input<uint8_t>() + at;
    const int largest = largest_byte(x, flip, part.length);
    double sum = 0;  // of whole numbers of up to 2^23: exact
    for (int64_t i = 0; i < part.length; ++i) sum += table[largest - (x[i] ^ flip)];
    const double divisor = sum * double(call.out().scale);
    uint8_t entries[256];  // one division for each stored number, not for each element
    for (int d = 0; d <= largest; ++d)
      entries[d] = uint8_t(int(std::fmin(std::fmax(std::rint(table[d] / divisor) + zero, low), high)));
    for (int64_t i = 0; i < part.length; ++i) call.result<uint8_t>()[at + i] = entries[largest - (x[i] ^ flip)];
  }
}

void integer_l2_normalise(const Call &call) {
  const Rows part = rows(call);
  const Requantiser requantise(call.op(), call.out());
  const Stored given = stored(call.type());
  const double scale = call.type().scale;
  for (int64_t at = part.begin; at < part.end; at += part.length) {
    const uint8_t *x = call.input<uint8_t>() + at;
    uint8_t *out = call.result<uint8_t>() + at;
    int64_t squares = 0;
    for (int64_t i = 0; i < part.length; ++i) squares += given(x[i]) * given(x[i]);
    const double length = std::sqrt(std::fmax(scale * scale * double(squares), call.op().epsilon));
    const float multiplier = float(scale / length / double(call.out().scale));
    for (int64_t i = 0; i < part.length; ++i) out[i] = requantise(float(given(x[i])), multiplier);
  }
}

void integer_argmax(const Call &call) {
  const Rows part = rows(call);
  const int flip = stored(call.type()).flip;
  int64_t *out = call.result<int64_t>() + call.first;
  for (int64_t at = part.begin; at < part.end; at += part.length) {
    const uint8_t *x = call.input<uint8_t>() + at;
    const uint8_t byte = uint8_t(largest_byte(x, flip, part.length) ^ flip);
    *out++ = std::find(x, x + part.length, byte) - x;
  }
}

// Integers of one type as those that the node writes.
void requantise_row(const Call &call, const TensorType &from, const uint8_t *x, uint8_t *out, int64_t count) {
  const TensorType &to = call.out();
  if (from.dtype == to.dtype && from.scale == to.scale && from.zero_point == to.zero_point) {
    std::copy(x, x + count, out);
    return;
  }
  const Requantiser requantise(call.op(), to);
  const float multiplier = from.scale / to.scale;
  const Stored given = stored(from);
  for (int64_t i = 0; i < count; ++i) out[i] = requantise(float(given(x[i])), multiplier);
}

void quantise(const Call &call) {
  const Rows part = rows(call);
  uint8_t *out = call.result<uint8_t>() + part.begin;
  const int64_t count = part.end - part.begin;
  if (is_integer(call.type().dtype))
    return requantise_row(call, call.type(), call.input<uint8_t>() + part.begin, out, count);
  const Requantiser requantise(call.op(), call.out());  // its limits make NaN the lowest
  const float inverse = 1.0f / call.out().scale;
  const float *x = call.input<float>() + part.begin;
  for (int64_t i = 0; i < count; ++i) out[i] = requantise(x[i], inverse);
}

void dequantise(const Call &call) {
  const Rows part = rows(call);
  const Stored given = stored(call.type());
  const float scale = call.type().scale;
  const uint8_t *x = call.input<uint8_t>();
  float *out = call.result<float>();
  for (int64_t i = part.begin; i < part.end; ++i) out[i] = float(given(x[i])) * scale;
}

}  // namespace mobilenet::generic
