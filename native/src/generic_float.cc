// Float operators on rows of the last axis. The parts of a call are such rows, except for the mean's.
#include <cmath>

#include "generic_rules.h"

namespace mobilenet::generic {
namespace {

constexpr int LANES = 8;  // partial sums and maxima of a row

struct Rows {
  int64_t length, begin, end;  // of a row; the elements of the call's rows
};
Rows rows(const Call &call) {
  const int64_t length = last_axis(call.type().shape);
  return {length, call.first * length, call.last * length};
}

template <class Term>
float row_sum(int64_t count, const Term &term) {
  float sums[LANES] = {};
  const int64_t whole = count / LANES * LANES;
  for (int64_t i = 0; i < whole; i += LANES)
    for (int j = 0; j < LANES; ++j) sums[j] += term(i + j);
  for (int64_t i = whole; i < count; ++i) sums[i - whole] += term(i);
  for (int half = LANES / 2; half > 0; half /= 2)
    for (int j = 0; j < half; ++j) sums[j] += sums[j + half];
  return sums[0];
}

// NaN wins, as in numpy. `|` and not `||`, as a branch would keep loops from being vectorised.
inline float larger(float a, float b) { return ((b > a) | (b != b)) ? b : a; }

// The largest number of a row, NaN if there is one.
float row_largest(const float *x, int64_t count) {
  float largest[LANES];
  std::fill(largest, largest + LANES, x[0]);
  const int64_t whole = count / LANES * LANES;
  for (int64_t i = 0; i < whole; i += LANES)
    for (int j = 0; j < LANES; ++j) largest[j] = larger(largest[j], x[i + j]);
  for (int64_t i = whole; i < count; ++i) largest[0] = larger(largest[0], x[i]);
  for (int j = 1; j < LANES; ++j) largest[0] = larger(largest[0], largest[j]);
  return largest[0];
}

// The activation, and prelu's slopes, of rows that hold all but that.
void finish(const Call &call, const Rows &rows) {
  float *out = call.result<float>();
  if (call.op().activation != Activation::prelu)
    return finish_row(call.op().activation, nullptr, nullptr, out + rows.begin, rows.end - rows.begin);
  const float *alpha = call.floats("alpha");
  for (int64_t at = rows.begin; at < rows.end; at += rows.length)
    finish_row(Activation::prelu, nullptr, alpha, out + at, rows.length);
}

// The sums of a picture's `count` channels: rows of pixels first, then of rows, which keeps the rounding small.
void channel_sums(const float *x, int64_t height, int64_t width, int64_t stride, int64_t count, float *sums) {
  std::fill(sums, sums + count, 0.0f);
  for (int64_t y = 0; y < height; ++y) {
    float row[MEAN_CHANNELS] = {};
    for (int64_t column = 0; column < width; ++column, x += stride)
      for (int64_t c = 0; c < count; ++c) row[c] += x[c];
    for (int64_t c = 0; c < count; ++c) sums[c] += row[c];
  }
}

}  // namespace

void float_batch_norm(const Call &call) {
  const Rows part = rows(call);
  const float *mean = call.floats("mean"), *variance = call.floats("variance"), *beta = call.floats("beta");
  const float *gamma = call.floats("gamma"), epsilon = float(call.op().epsilon);
  float *factor = reinterpret_cast<float *>(call.scratch);
  for (int64_t c = 0; c < part.length; ++c) factor[c] = gamma[c] / std::sqrt(variance[c] + epsilon);
  for (int64_t at = part.begin; at < part.end; at += part.length) {
    const float *x = call.input<float>() + at;
    float *out = call.result<float>() + at;
    for (int64_t c = 0; c < part.length; ++c) out[c] = (x[c] - mean[c]) * factor[c] + beta[c];
  }
  finish(call, part);
}

void float_activation(const Call &call) {
  const Rows part = rows(call);
  const float *x = call.input<float>();
  std::copy(x + part.begin, x + part.end, call.result<float>() + part.begin);
  finish(call, part);
}

void float_add(const Call &call) {
  const Rows part = rows(call);
  const float *a = call.input<float>(), *b = call.input<float>(1);
  float *out = call.result<float>();
  for (int64_t i = part.begin; i < part.end; ++i) out[i] = a[i] + b[i];
  finish(call, part);
}

void float_mul(const Call &call) {
  const Rows part = rows(call);
  const bool constant = call.op().constant;
  const Shape &shape = call.type().shape;
  const float *second = constant ? call.floats("weight") : call.input<float>(1);
  BroadcastRows walk(shape, call.type(constant ? 0 : 1).shape, call.first);
  for (int64_t at = part.begin; at < part.end; at += part.length, walk.advance()) {
    const float *a = call.input<float>() + at, *b = second + (constant ? 0 : walk.offset());
    float *out = call.result<float>() + at;
    if (constant || walk.step() == 1)
      for (int64_t i = 0; i < part.length; ++i) out[i] = a[i] * b[i];
    else
      for (int64_t i = 0; i < part.length; ++i) out[i] = a[i] * b[0];
  }
  finish(call, part);
}

// The parts are groups of channels.
void float_mean(const Call &call) {
  const Shape &in = call.type().shape;
  const float pixels = float(in[0] * in[1]);
  for (int64_t group = call.first; group < call.last; ++group) {
    const int64_t c = group * MEAN_CHANNELS, count = std::min(in[2] - c, MEAN_CHANNELS);
    float *out = call.result<float>() + c;
    channel_sums(call.input<float>() + c, in[0], in[1], in[2], count, out);
    for (int64_t i = 0; i < count; ++i) out[i] /= pixels;
  }
}

void float_softmax(const Call &call) {
  const Rows part = rows(call);
  const float beta = float(call.op().beta);
  for (int64_t at = part.begin; at < part.end; at += part.length) {
    const float *x = call.input<float>() + at;
    float *out = call.result<float>() + at;
    for (int64_t i = 0; i < part.length; ++i) out[i] = x[i] * beta;
    const float largest = row_largest(out, part.length);
    for (int64_t i = 0; i < part.length; ++i) out[i] = exp_of_negative(out[i] - largest);
    const float sum = row_sum(part.length, [&](int64_t i) { return out[i]; });
    for (int64_t i = 0; i < part.length; ++i) out[i] /= sum;
  }
}

void float_l2_normalise(const Call &call) {
  const Rows part = rows(call);
  const float epsilon = float(call.op().epsilon);
  for (int64_t at = part.begin; at < part.end; at += part.length) {
    const float *x = call.input<float>() + at;
    float *out = call.result<float>() + at;
    const float squares = row_sum(part.length, [&](int64_t i) { return x[i] * x[i]; });
    const float length = std::sqrt(larger(epsilon, squares));
    for (int64_t i = 0; i < part.length; ++i) out[i] = x[i] / length;
  }
}

void float_argmax(const Call &call) {
  const Rows part = rows(call);
  int64_t *out = call.result<int64_t>() + call.first;
  for (int64_t at = part.begin; at < part.end; at += part.length) {
    const float *x = call.input<float>() + at;
    float largest = x[0];
    int64_t place = 0;
    for (int64_t i = 1; i < part.length; ++i) {
      const bool more = (x[i] > largest) | ((x[i] != x[i]) & (largest == largest));  // the first NaN wins
      largest = more ? x[i] : largest;
      place = more ? i : place;
    }
    *out++ = place;
  }
}

}  // namespace mobilenet::generic
