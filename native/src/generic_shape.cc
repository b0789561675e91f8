// What only moves elements: pad, concat, reshape, transpose.
#include "generic_rules.h"

namespace mobilenet::generic {
namespace {

constexpr int64_t TILE = 16;  // of a transpose: rows and columns that fit into the nearest cache together

// The parts are places along the outermost output axis. The input is contiguous along the output's axis `inner`,
// the output along its last one: tiles of the two are read and written well.
template <class T>
struct Transposition {
  int rank = 0;
  int64_t sizes[8] = {}, strides[8] = {};  // of the output's axes: sizes, and steps in the input
  int inner = 0;

  Transposition(const Shape &in, const Shape &axes) : rank(int(axes.size())) {
    int64_t steps[8], step = 1;
    for (int axis = rank - 1; axis >= 0; --axis) {
      steps[axis] = step;
      step *= in[size_t(axis)];
    }
    for (int axis = 0; axis < rank; ++axis) {
      sizes[axis] = in[size_t(axes[size_t(axis)])];
      strides[axis] = steps[axes[size_t(axis)]];
      if (axes[size_t(axis)] == rank - 1) inner = axis;
    }
  }

  // Copies everything below `axis`; `inner` and the last axis are left to `tiles`.
  void copy(int axis, const T *from, T *to, int64_t inner_step) const {
    if (axis == rank - 1) return tiles(from, to, inner_step);
    int64_t below = 1;
    for (int i = axis + 1; i < rank; ++i) below *= sizes[i];
    if (axis == inner) return copy(axis + 1, from, to, below);
    for (int64_t i = 0; i < sizes[axis]; ++i) copy(axis + 1, from + i * strides[axis], to + i * below, inner_step);
  }

  void tiles(const T *from, T *to, int64_t inner_step) const {
    const int64_t columns = sizes[rank - 1], stride = strides[rank - 1];
    if (inner == rank - 1) {
      std::copy(from, from + columns, to);
      return;
    }
    for (int64_t row = 0; row < sizes[inner]; row += TILE)
      for (int64_t column = 0; column < columns; column += TILE) {
        const int64_t last_row = std::min(row + TILE, sizes[inner]), last = std::min(column + TILE, columns);
        for (int64_t i = row; i < last_row; ++i)
          for (int64_t j = column; j < last; ++j) to[i * inner_step + j] = from[i + j * stride];
      }
  }
};

template <class T>
void transpose_elements(const Call &call) {
  const Shape &in = call.type().shape;
  if (in.empty()) {
    *call.result<T>() = *call.input<T>();
    return;
  }
  Transposition<T> work(in, call.op().axes);
  const int64_t below = elements(call.out().shape) / work.sizes[0];
  work.sizes[0] = call.last - call.first;
  work.copy(0, call.input<T>() + call.first * work.strides[0], call.result<T>() + call.first * below, 0);
}

}  // namespace

// The parts are rows of the output.
void pad(const Call &call) {
  const Shape &in = call.type().shape, &out = call.out().shape;
  const size_t size = size_of(call.out().dtype), pixel = size_t(out[2]) * size;
  const int fill = is_integer(call.out().dtype) ? call.out().zero_point & 0xFF : 0;
  const int64_t top = call.op().padding[0], left = call.op().padding[2], right = call.op().padding[3];
  for (int64_t y = call.first; y < call.last; ++y) {
    char *row = call.result<char>() + size_t(y * out[1]) * pixel;
    if (y < top || y >= top + in[0]) {
      std::memset(row, fill, size_t(out[1]) * pixel);
      continue;
    }
    std::memset(row, fill, size_t(left) * pixel);
    std::memcpy(row + size_t(left) * pixel, call.input<char>() + size_t((y - top) * in[1]) * pixel,
                size_t(in[1]) * pixel);
    std::memset(row + size_t(left + in[1]) * pixel, fill, size_t(right) * pixel);
  }
}

// The parts are rows of the last axis.
void concat(const Call &call) {
  const bool integer = is_integer(call.out().dtype);
  const int64_t length = call.out().shape.back();
  int64_t start = 0;
  for (int i = 0; i < int(call.node.inputs.size()); ++i) {
    const TensorType &type = call.type(i);
    const int64_t count = type.shape.back();
    for (int64_t row = call.first; row < call.last; ++row) {
      const int64_t from = row * count, to = row * length + start;
      if (integer) requantise_row(call, type, call.input<uint8_t>(i) + from, call.result<uint8_t>() + to, count);
      else std::copy_n(call.input<float>(i) + from, count, call.result<float>() + to);
    }
    start += count;
  }
}

// The parts are pieces of COPY_BYTES.
void reshape(const Call &call) {
  const int64_t bytes = elements(call.out().shape) * int64_t(size_of(call.out().dtype));
  const int64_t first = call.first * COPY_BYTES, last = std::min(call.last * COPY_BYTES, bytes);
  if (first < last) std::memcpy(call.result<char>() + first, call.input<char>() + first, size_t(last - first));
}

void transpose(const Call &call) {
  if (is_integer(call.out().dtype)) transpose_elements<uint8_t>(call);
  else transpose_elements<float>(call);
}

}  // namespace mobilenet::generic
