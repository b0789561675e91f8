// Integer convolutions and matrix products (rules 1, 2 and 4 of reference_integer.py). Inputs lose their zero
// point on their way into a row of int16, where padding is 0; that of the weights is taken off at the end:
// sum of x * (w - offset) = sum of x * w - offset * sum of x.
#include <cstdlib>

#include "generic_rules.h"

namespace mobilenet::generic {
namespace {

// How many products of numbers within -383..383 (a byte less a zero point) an int32 holds.
constexpr int64_t INT32_TERMS = 14'000;

int32_t short_dot(const int16_t *x, const uint8_t *w, int flip, int64_t terms) {
  int32_t sum = 0;
  for (int64_t k = 0; k < terms; ++k) sum += int32_t(x[k]) * int32_t(int16_t(uint8_t(w[k] ^ flip)));
  return sum;
}

int64_t dot(const int16_t *x, const uint8_t *w, int flip, int64_t terms) {
  int64_t sum = 0;
  for (int64_t k = 0; k < terms; k += INT32_TERMS)
    sum += short_dot(x + k, w + k, flip, std::min(terms - k, INT32_TERMS));
  return sum;
}

int64_t row_sum(const int16_t *x, int64_t count) {
  int64_t sum = 0;
  for (int64_t k = 0; k < count; ++k) sum += x[k];
  return sum;
}

void centre(const uint8_t *x, Stored stored, int64_t count, int16_t *out) {
  for (int64_t i = 0; i < count; ++i) out[i] = int16_t(stored(x[i]));
}

// The weights of a node and what turns their sums into stored numbers.
struct Linear {
  const uint8_t *weight;
  const int32_t *bias;     // or nullptr
  Stored weight_stored;
  const float *multipliers;  // by output channel
  Requantiser requantise;

  Linear(const Call &call, float *scratch)
      : weight(static_cast<const uint8_t *>(call.find("weight")->data)),
        bias(call.find("bias") ? call.find("bias")->i32() : nullptr),
        weight_stored(stored(call.find("weight")->dtype, call.find("weight_zero_point")->i32()[0])),
        multipliers(scratch),
        requantise(call.op(), call.out()) {
    const Tensor &scales = *call.find("weight_scale");
    const int64_t step = elements(scales.shape) == 1 ? 0 : 1, channels = call.out().shape.back();
    for (int64_t c = 0; c < channels; ++c)
      scratch[c] = call.type().scale * scales.f32()[c * step] / call.out().scale;
  }
  uint8_t finish(int64_t total, int64_t channel) const {
    return requantise(float(total + (bias ? bias[channel] : 0)), multipliers[channel]);
  }
  // Outputs [first, last) of one row of inputs.
  void run(const int16_t *x, int64_t terms, int64_t first, int64_t last, uint8_t *out) const {
    const int64_t offset = weight_stored.offset * row_sum(x, terms);
    for (int64_t c = first; c < last; ++c)
      *out++ = finish(dot(x, weight + c * terms, weight_stored.flip, terms) - offset, c);
  }
};

// What the window of output pixel (y, x) sees, in the order of the weights.
void gather(const Operator &op, const Shape &shape, const uint8_t *picture, Stored stored, int64_t y, int64_t x,
            int16_t *window) {
  const int64_t channels = shape[2];
  const Taps down = taps_of(op, 0, y, shape[0]), across = taps_of(op, 1, x, shape[1]);
  std::fill(window, window + op.kernel[0] * op.kernel[1] * channels, int16_t(0));
  for (int64_t i = down.first; i < down.last; ++i)
    for (int64_t j = across.first; j < across.last; ++j) {
      const int64_t row = down.start + (i - down.first) * op.dilation[0];
      const int64_t column = across.start + (j - across.first) * op.dilation[1];
      centre(picture + (row * shape[1] + column) * channels, stored, channels,
             window + (i * op.kernel[1] + j) * channels);
    }
}

// sums[c] += (x[c] - zero point) * (w[c] - zero point), with `multiplier` filters a channel.
template <class Sum>
void add_tap(const uint8_t *__restrict x, Stored x_stored, const uint8_t *__restrict w, Stored w_stored,
             Sum *__restrict sums, int64_t channels, int64_t multiplier) {
  if (multiplier == 1) {
    for (int64_t c = 0; c < channels; ++c)
      sums[c] += int32_t(int16_t(x_stored(x[c]))) * int32_t(int16_t(w_stored(w[c])));
    return;
  }
  for (int64_t c = 0; c < channels; ++c)
    for (int64_t j = c * multiplier; j < (c + 1) * multiplier; ++j) sums[j] += x_stored(x[c]) * w_stored(w[j]);
}

template <class Sum>
void depthwise_row(const Call &call, const Linear &linear, int64_t y, Sum *sums) {
  const Operator &op = call.op();
  const Shape &in = call.type().shape, &out = call.out().shape;
  const Taps down = taps_of(op, 0, y, in[0]);
  uint8_t *result = call.result<uint8_t>() + y * out[1] * out[2];
  for (int64_t x = 0; x < out[1]; ++x, result += out[2]) {
    const Taps across = taps_of(op, 1, x, in[1]);
    std::fill(sums, sums + out[2], Sum(0));
    for (int64_t i = down.first; i < down.last; ++i)
      for (int64_t j = across.first; j < across.last; ++j) {
        const int64_t row = down.start + (i - down.first) * op.dilation[0];
        const int64_t column = across.start + (j - across.first) * op.dilation[1];
        add_tap(call.input<uint8_t>() + (row * in[1] + column) * in[2], stored(call.type()),
                linear.weight + (i * op.kernel[1] + j) * out[2], linear.weight_stored, sums, in[2], op.multiplier);
      }
    for (int64_t c = 0; c < out[2]; ++c) result[c] = linear.finish(sums[c], c);
  }
}

// sums[j] = sum of x[k] * (b[k * columns + j] ^ flip), added up in int32 for as long as that holds it.
void product_row(const int16_t *x, const uint8_t *b, int flip, int64_t terms, int64_t columns, int32_t *partial,
                 int64_t *sums) {
  std::fill(sums, sums + columns, int64_t(0));
  for (int64_t start = 0; start < terms; start += INT32_TERMS) {
    std::fill(partial, partial + columns, 0);
    for (int64_t k = start; k < std::min(terms, start + INT32_TERMS); ++k)
      for (int64_t j = 0; j < columns; ++j)
        partial[j] += int32_t(x[k]) * int32_t(int16_t(uint8_t(b[k * columns + j] ^ flip)));
    for (int64_t j = 0; j < columns; ++j) sums[j] += partial[j];
  }
}

}  // namespace

size_t integer_linear_scratch(const Graph &graph, const Node &node) {
  const Operator &op = node.op;
  const Shape &in = graph.type(node.inputs[0]).shape;
  const size_t outputs = size_t(node.type.shape.back());
  const auto bytes = [](size_t count, size_t size) { return aligned(count * size); };
  switch (op.kind) {
    case Kind::conv: return bytes(outputs, 4) + bytes(size_t(op.kernel[0] * op.kernel[1] * in[2]), 2);
    case Kind::dense: return bytes(outputs, 4) + bytes(size_t(in.back()), 2);
    case Kind::depthwise_conv: return bytes(outputs, 4) + bytes(outputs, 8);
    case Kind::matmul: return bytes(size_t(in[1]), 2) + bytes(outputs, 4) + bytes(outputs, 8);
    default: return 0;
  }
}

void integer_conv(const Call &call) {
  const Operator &op = call.op();
  const Shape &in = call.type().shape, &out = call.out().shape;
  const int64_t terms = op.kernel[0] * op.kernel[1] * in[2];
  Scratch scratch(call);
  const Linear linear(call, scratch.take<float>(out[2]));
  int16_t *window = scratch.take<int16_t>(terms);
  uint8_t *result = call.result<uint8_t>() + call.first * out[1] * out[2];
  for (int64_t y = call.first; y < call.last; ++y)
    for (int64_t x = 0; x < out[1]; ++x, result += out[2]) {
      gather(op, in, call.input<uint8_t>(), stored(call.type()), y, x, window);
      linear.run(window, terms, 0, out[2], result);
    }
}

void integer_depthwise_conv(const Call &call) {
  const Operator &op = call.op();
  const int64_t channels = call.out().shape[2];
  Scratch scratch(call);
  const Linear linear(call, scratch.take<float>(channels));
  int64_t *sums = scratch.take<int64_t>(channels);
  const bool small = op.kernel[0] * op.kernel[1] <= INT32_TERMS;
  for (int64_t y = call.first; y < call.last; ++y) {
    if (small) depthwise_row(call, linear, y, reinterpret_cast<int32_t *>(sums));
    else depthwise_row(call, linear, y, sums);
  }
}

// The parts are rows of the input, or outputs if it has but one row.
void integer_dense(const Call &call) {
  const Shape &in = call.type().shape;
  const int64_t terms = in.back(), outputs = call.op().out_features;
  const uint8_t *x = call.input<uint8_t>();
  uint8_t *out = call.result<uint8_t>();
  Scratch scratch(call);
  const Linear linear(call, scratch.take<float>(outputs));
  int16_t *row = scratch.take<int16_t>(terms);
  if (rows_of(in) == 1) {
    centre(x, stored(call.type()), terms, row);
    return linear.run(row, terms, call.first, call.last, out + call.first);
  }
  for (int64_t i = call.first; i < call.last; ++i) {
    centre(x + i * terms, stored(call.type()), terms, row);
    linear.run(row, terms, 0, outputs, out + i * outputs);
  }
}

void integer_matmul(const Call &call) {
  const int64_t terms = call.type().shape[1], columns = call.out().shape[1];
  const Stored second = stored(call.type(1));
  const uint8_t *b = call.input<uint8_t>(1);
  const Requantiser requantise(call.op(), call.out());
  const float multiplier = call.type().scale * call.type(1).scale / call.out().scale;
  Scratch scratch(call);
  int16_t *row = scratch.take<int16_t>(terms);
  int32_t *partial = scratch.take<int32_t>(columns);
  int64_t *sums = scratch.take<int64_t>(columns);
  for (int64_t i = call.first; i < call.last; ++i) {
    centre(call.input<uint8_t>() + i * terms, stored(call.type()), terms, row);
    const int64_t offset = second.offset * row_sum(row, terms);
    if (call.op().transpose_second)
      for (int64_t j = 0; j < columns; ++j) sums[j] = dot(row, b + j * terms, second.flip, terms);
    else product_row(row, b, second.flip, terms, columns, partial, sums);
    uint8_t *out = call.result<uint8_t>() + i * columns;
    for (int64_t j = 0; j < columns; ++j) out[j] = requantise(float(sums[j] - offset), multiplier);
  }
}

}  // namespace mobilenet::generic
