// Float convolutions and matrix products. Every sum over a window is one dot product of two contiguous rows: the
// pixel's window, gathered with zeros for padding, and the weights of an output channel. A dot product is 4
// partial sums, so its value depends neither on how the work is shared out nor on what is summed beside it.
#include "generic_rules.h"

namespace mobilenet::generic {
namespace {

constexpr int LANES = 4;    // partial sums of a dot product
constexpr int PIXELS = 2;   // rows of a tile
constexpr int OUTPUTS = 4;  // dot products with each of them
constexpr int64_t COLUMNS = 32;  // of a tile of a matrix product

// tile[r][o] = dot(a + r * terms, b + o * terms) for R x O dot products at once.
template <int R, int O>
inline void dots(const float *a, const float *b, int64_t terms, float (&tile)[PIXELS][OUTPUTS]) {
  float sums[R][O][LANES] = {};
  const int64_t whole = terms / LANES * LANES;
  for (int64_t k = 0; k < whole; k += LANES)
    for (int r = 0; r < R; ++r)
      for (int o = 0; o < O; ++o)
        for (int i = 0; i < LANES; ++i) sums[r][o][i] += a[r * terms + k + i] * b[o * terms + k + i];
  for (int r = 0; r < R; ++r)
    for (int o = 0; o < O; ++o) {
      float *lane = sums[r][o];
      for (int64_t k = whole; k < terms; ++k) lane[k - whole] += a[r * terms + k] * b[o * terms + k];
      tile[r][o] = (lane[0] + lane[1]) + (lane[2] + lane[3]);
    }
}

// out[r * stride + o] = dot(row r of a, row o of b), of `rows` (at most PIXELS) and `outputs` rows of `terms`.
void products(const float *a, int64_t rows, const float *b, int64_t outputs, int64_t terms, float *out,
              int64_t stride) {
  float tile[PIXELS][OUTPUTS];
  int64_t o = 0;
  for (; o + OUTPUTS <= outputs; o += OUTPUTS) {
    if (rows == PIXELS) dots<PIXELS, OUTPUTS>(a, b + o * terms, terms, tile);
    else dots<1, OUTPUTS>(a, b + o * terms, terms, tile);
    for (int64_t r = 0; r < rows; ++r) std::copy(tile[r], tile[r] + OUTPUTS, out + r * stride + o);
  }
  for (; o < outputs; ++o)
    for (int64_t r = 0; r < rows; ++r) {
      dots<1, 1>(a + r * terms, b + o * terms, terms, tile);
      out[r * stride + o] = tile[0][0];
    }
}

// What the window of output pixel (y, x) sees, in the order of the weights.
void gather(const Operator &op, const Shape &shape, const float *picture, int64_t y, int64_t x, float *window) {
  const int64_t channels = shape[2];
  const Taps down = taps_of(op, 0, y, shape[0]), across = taps_of(op, 1, x, shape[1]);
  std::fill(window, window + op.kernel[0] * op.kernel[1] * channels, 0.0f);
  for (int64_t i = down.first; i < down.last; ++i) {
    const int64_t row = down.start + (i - down.first) * op.dilation[0];
    const float *from = picture + (row * shape[1] + across.start) * channels;
    float *to = window + (i * op.kernel[1] + across.first) * channels;
    const int64_t taps = across.last - across.first;
    if (op.dilation[1] == 1) std::copy(from, from + taps * channels, to);
    else
      for (int64_t j = 0; j < taps; ++j, from += op.dilation[1] * channels, to += channels)
        std::copy(from, from + channels, to);
  }
}

bool pointwise(const Operator &op) {
  const auto all = [](const int64_t *values, int count, int64_t value) {
    return std::all_of(values, values + count, [&](int64_t v) { return v == value; });
  };
  return all(op.kernel, 2, 1) && all(op.stride, 2, 1) && all(op.padding, 4, 0);
}

// rows x outputs dot products with the weights of a node, from `first_output` on, and what follows them.
void linear_rows(const Call &call, const float *a, int64_t rows, int64_t terms, int64_t first_output,
                 int64_t outputs, float *out, int64_t stride) {
  const auto from = [&](const char *name) {
    const float *values = call.floats(name);
    return values ? values + first_output : nullptr;
  };
  const float *bias = from("bias"), *alpha = from("alpha");
  const float *weight = call.floats("weight") + first_output * terms;
  for (int64_t row = 0; row < rows; row += PIXELS) {
    const int64_t count = std::min<int64_t>(rows - row, PIXELS);
    products(a + row * terms, count, weight, outputs, terms, out + row * stride, stride);
    for (int64_t r = row; r < row + count; ++r)
      finish_row(call.op().activation, bias, alpha, out + r * stride, outputs);
  }
}

// out[c] += x[c] * w[c], or with a multiplier m of filters a channel out[c * m + j] += x[c] * w[c * m + j].
void add_tap(const float *__restrict x, const float *__restrict w, float *__restrict out, int64_t channels,
             int64_t multiplier) {
  if (multiplier == 1)
    for (int64_t c = 0; c < channels; ++c) out[c] += x[c] * w[c];
  else
    for (int64_t c = 0; c < channels; ++c)
      for (int64_t j = c * multiplier; j < (c + 1) * multiplier; ++j) out[j] += x[c] * w[j];
}

// sums[j] += a[k] * b[k * stride + j] over all k, for COLUMNS of j.
inline void add_columns(const float *a, const float *b, int64_t stride, int64_t terms, float *sums) {
  float sum[COLUMNS] = {};
  for (int64_t k = 0; k < terms; ++k)
    for (int64_t j = 0; j < COLUMNS; ++j) sum[j] += a[k] * b[k * stride + j];
  std::copy(sum, sum + COLUMNS, sums);
}

// One row of a matrix product: out[j] = sum of a[k] * b[k * columns + j].
void product_row(const float *a, const float *b, int64_t terms, int64_t columns, float *out) {
  int64_t j = 0;
  for (; j + COLUMNS <= columns; j += COLUMNS) add_columns(a, b + j, columns, terms, out + j);
  std::fill(out + j, out + columns, 0.0f);
  for (int64_t k = 0; k < terms; ++k)
    for (int64_t rest = j; rest < columns; ++rest) out[rest] += a[k] * b[k * columns + rest];
}

}  // namespace

size_t linear_scratch(const Graph &graph, const Node &node) {
  if (node.op.kind != Kind::conv || pointwise(node.op)) return 0;
  const int64_t terms = node.op.kernel[0] * node.op.kernel[1] * graph.type(node.inputs[0]).shape[2];
  return size_t(PIXELS * terms) * sizeof(float);
}

void float_conv(const Call &call) {
  const Operator &op = call.op();
  const Shape &in = call.type().shape, &out = call.out().shape;
  const int64_t terms = op.kernel[0] * op.kernel[1] * in[2], width = out[1], channels = out[2];
  float *result = call.result<float>() + call.first * width * channels;
  if (pointwise(op)) {
    const float *from = call.input<float>() + call.first * width * terms;
    return linear_rows(call, from, (call.last - call.first) * width, terms, 0, channels, result, channels);
  }
  float *windows = reinterpret_cast<float *>(call.scratch);
  for (int64_t y = call.first; y < call.last; ++y)
    for (int64_t x = 0; x < width; x += PIXELS) {
      const int64_t count = std::min<int64_t>(width - x, PIXELS);
      for (int64_t i = 0; i < count; ++i) gather(op, in, call.input<float>(), y, x + i, windows + i * terms);
      linear_rows(call, windows, count, terms, 0, channels, result, channels);
      result += count * channels;
    }
}

void float_depthwise_conv(const Call &call) {
  const Operator &op = call.op();
  const Shape &in = call.type().shape, &out = call.out().shape;
  const float *bias = call.floats("bias"), *alpha = call.floats("alpha"), *weight = call.floats("weight");
  float *result = call.result<float>() + call.first * out[1] * out[2];
  for (int64_t y = call.first; y < call.last; ++y) {
    const Taps down = taps_of(op, 0, y, in[0]);
    for (int64_t x = 0; x < out[1]; ++x, result += out[2]) {
      const Taps across = taps_of(op, 1, x, in[1]);
      std::fill(result, result + out[2], 0.0f);
      for (int64_t i = down.first; i < down.last; ++i)
        for (int64_t j = across.first; j < across.last; ++j) {
          const int64_t row = down.start + (i - down.first) * op.dilation[0];
          const int64_t column = across.start + (j - across.first) * op.dilation[1];
          add_tap(call.input<float>() + (row * in[1] + column) * in[2], weight + (i * op.kernel[1] + j) * out[2],
                  result, in[2], op.multiplier);
        }
      finish_row(op.activation, bias, alpha, result, out[2]);
    }
  }
}

// The parts are rows of the input, or outputs if it has but one row.
void float_dense(const Call &call) {
  const Shape &in = call.type().shape;
  const int64_t terms = in.back(), outputs = call.op().out_features;
  const float *x = call.input<float>();
  if (rows_of(in) == 1)
    linear_rows(call, x, 1, terms, call.first, call.last - call.first, call.result<float>() + call.first, outputs);
  else
    linear_rows(call, x + call.first * terms, call.last - call.first, terms, 0, outputs,
                call.result<float>() + call.first * outputs, outputs);
}

void float_matmul(const Call &call) {
  const int64_t terms = call.type().shape[1], columns = call.out().shape[1];
  const float *second = call.input<float>(1);
  for (int64_t row = call.first; row < call.last; row += PIXELS) {
    const int64_t count = std::min<int64_t>(call.last - row, PIXELS);
    const float *a = call.input<float>() + row * terms;
    float *out = call.result<float>() + row * columns;
    if (call.op().transpose_second) products(a, count, second, columns, terms, out, columns);
    else
      for (int64_t r = 0; r < count; ++r) product_row(a + r * terms, second, terms, columns, out + r * columns);
  }
}

}  // namespace mobilenet::generic
