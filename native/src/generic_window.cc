// Pools of floats and of integers (rule 7 of reference_integer.py). The parts of a call are rows of the output.
#include <limits>

#include "generic_rules.h"

namespace mobilenet::generic {
namespace {

// Calls `visit` with each pixel of the window of output pixel (y, x) that is no padding, and returns their number.
template <class T, class Visit>
int64_t visit_window(const Call &call, int64_t y, int64_t x, const Visit &visit) {
  const Operator &op = call.op();
  const Shape &in = call.type().shape;
  const Taps down = taps_of(op, 0, y, in[0]), across = taps_of(op, 1, x, in[1]);
  const int64_t height = down.last - down.first, width = across.last - across.first;
  for (int64_t i = 0; i < height; ++i) {
    const T *pixel = call.input<T>() + ((down.start + i) * in[1] + across.start) * in[2];
    for (int64_t j = 0; j < width; ++j, pixel += in[2]) visit(pixel);
  }
  return height * width;
}

// Calls `pixel` with the place of each output pixel and its channels.
template <class T, class Pixel>
void for_pixels(const Call &call, const Pixel &pixel) {
  const Shape &out = call.out().shape;
  T *result = call.result<T>() + call.first * out[1] * out[2];
  for (int64_t y = call.first; y < call.last; ++y)
    for (int64_t x = 0; x < out[1]; ++x, result += out[2]) pixel(y, x, result);
}

void float_average_pool(const Call &call) {
  const int64_t channels = call.out().shape[2];
  const float *alpha = call.floats("alpha");
  for_pixels<float>(call, [&](int64_t y, int64_t x, float *out) {
    std::fill(out, out + channels, 0.0f);
    const float pixels = float(visit_window<float>(call, y, x, [&](const float *pixel) {
      for (int64_t c = 0; c < channels; ++c) out[c] += pixel[c];
    }));
    for (int64_t c = 0; c < channels; ++c) out[c] /= pixels;
    finish_row(call.op().activation, nullptr, alpha, out, channels);
  });
}

// Of the stored numbers, whatever their zero point; half a step goes away from zero.
template <class Sum>
void integer_average_pool(const Call &call, Sum *sums) {
  const int64_t channels = call.out().shape[2];
  const Stored given = stored(call.out().dtype, 0);
  const Range range = output_range(call.op(), call.out());
  for_pixels<uint8_t>(call, [&](int64_t y, int64_t x, uint8_t *out) {
    std::fill(sums, sums + channels, Sum(0));
    const Sum pixels = Sum(visit_window<uint8_t>(call, y, x, [&](const uint8_t *pixel) {
      for (int64_t c = 0; c < channels; ++c) sums[c] += given(pixel[c]);
    }));
    for (int64_t c = 0; c < channels; ++c) {
      const Sum size = (2 * (sums[c] < 0 ? -sums[c] : sums[c]) + pixels) / (2 * pixels);
      const int mean = int(sums[c] < 0 ? -size : size);
      out[c] = uint8_t(std::min(std::max(mean, range.low), range.high));
    }
  });
}

void float_max_pool(const Call &call) {
  const int64_t channels = call.out().shape[2];
  const float *alpha = call.floats("alpha");
  for_pixels<float>(call, [&](int64_t y, int64_t x, float *__restrict out) {
    std::fill(out, out + channels, -std::numeric_limits<float>::infinity());
    visit_window<float>(call, y, x, [&](const float *__restrict pixel) {
      for (int64_t c = 0; c < channels; ++c)  // NaN wins, as in numpy
        out[c] = ((pixel[c] > out[c]) | (pixel[c] != pixel[c])) ? pixel[c] : out[c];
    });
    finish_row(call.op().activation, nullptr, alpha, out, channels);
  });
}

void integer_max_pool(const Call &call) {
  const int64_t channels = call.out().shape[2];
  const Stored given = stored(call.out().dtype, 0);
  const uint8_t flip = uint8_t(given.flip);
  const Range range = output_range(call.op(), call.out());
  for_pixels<uint8_t>(call, [&](int64_t y, int64_t x, uint8_t *__restrict out) {
    std::fill(out, out + channels, uint8_t(0));
    visit_window<uint8_t>(call, y, x, [&](const uint8_t *__restrict pixel) {
      for (int64_t c = 0; c < channels; ++c) out[c] = std::max(out[c], uint8_t(pixel[c] ^ flip));
    });
    for (int64_t c = 0; c < channels; ++c)
      out[c] = uint8_t(std::min(std::max(given(uint8_t(out[c] ^ flip)), range.low), range.high));
  });
}

}  // namespace

void average_pool(const Call &call) {
  const Operator &op = call.op();
  if (!is_integer(call.out().dtype)) return float_average_pool(call);
  const int64_t most = std::numeric_limits<int32_t>::max() / (2 * 256 + 2);  // pixels whose doubled sum fits
  if (op.kernel[0] * op.kernel[1] <= most) integer_average_pool(call, reinterpret_cast<int32_t *>(call.scratch));
  else integer_average_pool(call, reinterpret_cast<int64_t *>(call.scratch));
}

void max_pool(const Call &call) {
  if (is_integer(call.out().dtype)) integer_max_pool(call);
  else float_max_pool(call);
}

}  // namespace mobilenet::generic
