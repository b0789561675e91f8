// What the files generic_*.cc share: the call that a rule answers, its scratch memory, stored bytes as numbers.
#pragma once

#include <algorithm>
#include <cstring>
#include <string_view>

#include "graph.h"
#include "memory.h"

namespace mobilenet::generic {

// A weight, or nullptr. Node::parameter would build a std::string, which may allocate.
inline const Tensor *find(const Node &node, std::string_view name) {
  for (const auto &[key, tensor] : node.parameters)
    if (key == name) return &tensor;
  return nullptr;
}

// One node at work on one picture: the parts [first, last) of it.
struct Call {
  const Graph &graph;
  const Node &node;
  const void *const *inputs;
  void *output;
  char *scratch;
  int64_t first, last;

  const Operator &op() const { return node.op; }
  const TensorType &type(int i = 0) const { return graph.type(node.inputs[size_t(i)]); }
  const TensorType &out() const { return node.type; }
  const Tensor *find(std::string_view name) const { return generic::find(node, name); }
  const float *floats(std::string_view name) const {  // of a parameter; nullptr if there is none
    const Tensor *tensor = find(name);
    return tensor ? tensor->f32() : nullptr;
  }
  template <class T>
  const T *input(int i = 0) const {
    return static_cast<const T *>(inputs[i]);
  }
  template <class T>
  T *result() const {
    return static_cast<T *>(output);
  }
};

// Hands out the scratch memory of a call piece by piece.
class Scratch {
 public:
  explicit Scratch(const Call &call) : at_(call.scratch) {}
  template <class T>
  T *take(int64_t count) {
    char *piece = at_;
    at_ += aligned(size_t(count) * sizeof(T));
    return reinterpret_cast<T *>(piece);
  }

 private:
  char *at_;
};

// The size of a picture's last axis, and how many rows of it there are.
inline int64_t last_axis(const Shape &shape) { return shape.empty() ? 1 : shape.back(); }
inline int64_t rows_of(const Shape &shape) { return elements(shape) / last_axis(shape); }

// A stored byte of int8 or uint8 as a whole number without its zero point.
struct Stored {
  int flip, offset;
  int operator()(uint8_t byte) const { return int(uint8_t(byte ^ flip)) - offset; }
};
inline Stored stored(DType dtype, int zero_point) {
  return dtype == DType::int8 ? Stored{0x80, 0x80 + zero_point} : Stored{0, zero_point};
}
inline Stored stored(const TensorType &type) { return stored(type.dtype, type.zero_point); }

// The lowest and highest stored number that a node may write (rule 3 of reference_integer.py).
struct Range {
  int low, high;
};
Range output_range(const Operator &op, const TensorType &output);

// The nearest whole number, ties to even, of |x| < 2^22: adding 1.5 * 2^23 leaves no place for a fraction. A call
// of rint would keep a loop from being vectorised.
inline float nearest(float x) {
  constexpr float shift = 12582912.0f;
  return (x + shift) - shift;
}

// Rule 2 of reference_integer.py. Limiting before rounding gives the same, as the limits are whole numbers.
struct Requantiser {
  float low, high;
  int zero;
  Requantiser(const Operator &op, const TensorType &output) : zero(output.zero_point) {
    const Range range = output_range(op, output);
    low = float(range.low - zero);
    high = float(range.high - zero);
  }
  uint8_t operator()(float total, float multiplier) const {
    float x = total * multiplier;
    x = x > low ? x : low;
    x = x < high ? x : high;
    return uint8_t(int(nearest(x)) + zero);
  }
};

// The part of a kernel's axis that lies on the picture and not on its padding: taps [first, last), of which the
// first reads the place `start`.
struct Taps {
  int64_t first, last, start;
};
inline Taps taps_of(const Operator &op, int axis, int64_t at, int64_t size) {
  const int64_t dilation = op.dilation[axis], origin = at * op.stride[axis] - op.padding[2 * axis];
  const int64_t first = origin < 0 ? std::min((-origin + dilation - 1) / dilation, op.kernel[axis]) : 0;
  const int64_t last = origin < size ? std::min((size - origin + dilation - 1) / dilation, op.kernel[axis]) : 0;
  return {first, std::max(first, last), origin + first * dilation};
}

// Bias (unless nullptr) and activation of one row of channels; alpha is prelu's.
void finish_row(Activation activation, const float *bias, const float *alpha, float *row, int64_t count);

// out[i] is the table's entry for each stored byte.
void look_up(const uint8_t table[256], const uint8_t *x, uint8_t *out, int64_t count);

// e^x of x <= 0 to 2e-7, in operations that vectorise; below -87 it is 0.
inline float exp_of_negative(float x) {
  constexpr float shift = 12582912.0f, log2_e = 1.44269504f;
  constexpr float ln2_high = 0.693359375f, ln2_low = -2.12194440e-4f;  // the first times any exponent is exact
  const float limited = x < -87.0f ? -87.0f : x;
  const float shifted = limited * log2_e + shift, exponent = shifted - shift;
  const float r = (limited - exponent * ln2_high) - exponent * ln2_low;
  float series = (1.0f / 5040) * r + 1.0f / 720;  // without a loop, which would not be unrolled before vectorising
  series = series * r + 1.0f / 120;
  series = series * r + 1.0f / 24;
  series = series * r + 1.0f / 6;
  series = series * r + 0.5f;
  series = series * r + 1.0f;
  series = series * r + 1.0f;
  uint32_t bits;
  std::memcpy(&bits, &shifted, 4);
  bits = x < -87.0f ? 0 : (bits + 127) << 23;  // the exponent stands in the low bits of `shifted`
  float power;
  std::memcpy(&power, &bits, 4);
  return series * power;
}

// How much scratch memory the rules below need.
size_t linear_scratch(const Graph &graph, const Node &node);
size_t integer_linear_scratch(const Graph &graph, const Node &node);
size_t resize_scratch(const Graph &graph, const Node &node);

// The rules, by file. Those without a prefix take both floats and integers.
void float_conv(const Call &call);
void float_depthwise_conv(const Call &call);
void float_dense(const Call &call);
void float_matmul(const Call &call);

void float_batch_norm(const Call &call);
void float_activation(const Call &call);
void float_add(const Call &call);
void float_mul(const Call &call);
void float_mean(const Call &call);
void float_softmax(const Call &call);
void float_l2_normalise(const Call &call);
void float_argmax(const Call &call);

void integer_conv(const Call &call);
void integer_depthwise_conv(const Call &call);
void integer_dense(const Call &call);
void integer_matmul(const Call &call);

void integer_activation(const Call &call);
void integer_add(const Call &call);
void integer_mul(const Call &call);
void integer_mean(const Call &call);
void integer_softmax(const Call &call);
void integer_l2_normalise(const Call &call);
void integer_argmax(const Call &call);
void quantise(const Call &call);
void dequantise(const Call &call);
void requantise_row(const Call &call, const TensorType &from, const uint8_t *x, uint8_t *out, int64_t count);

// Rule 6: what the two inputs of an integer add are multiplied with before the sum is shifted.
struct AddFactors {
  int shift, first, second;
};
bool add_factors(const TensorType &first, const TensorType &second, const TensorType &output,
                 AddFactors &factors);

void average_pool(const Call &call);
void max_pool(const Call &call);
void resize(const Call &call);
void pad(const Call &call);
void concat(const Call &call);
void reshape(const Call &call);
void transpose(const Call &call);

constexpr int64_t COPY_BYTES = 1 << 16;      // of a part of a reshape
constexpr int64_t MEAN_CHANNELS = 64;        // of a part of a mean

// Walks over the rows of the last axis of an output that is a product with something broadcast along some axes.
class BroadcastRows {
 public:
  BroadcastRows(const Shape &shape, const Shape &second, int64_t row) : rank_(int(shape.size())) {
    int64_t step = 1;
    for (int axis = rank_ - 1; axis >= 0; --axis) {
      sizes_[axis] = shape[size_t(axis)];
      steps_[axis] = second[size_t(axis)] == 1 ? 0 : step;
      step *= second[size_t(axis)];
    }
    for (int axis = rank_ - 2; axis >= 0; --axis, row /= sizes_[axis + 1]) {
      places_[axis] = row % sizes_[axis];
      offset_ += places_[axis] * steps_[axis];
    }
  }
  int64_t offset() const { return offset_; }                          // of the second's row
  int64_t step() const { return rank_ > 0 ? steps_[rank_ - 1] : 0; }  // from one of its elements to the next
  void advance() {
    for (int axis = rank_ - 2; axis >= 0; --axis) {
      offset_ += steps_[axis];
      if (++places_[axis] < sizes_[axis]) return;
      offset_ -= places_[axis] * steps_[axis];
      places_[axis] = 0;
    }
  }

 private:
  int rank_;
  int64_t sizes_[8] = {}, steps_[8] = {}, places_[8] = {}, offset_ = 0;
};

}  // namespace mobilenet::generic
