// Steps that are no convolution: conversions between flat and blocked values, elementwise operators, means, and
// whatever generic.h does.
#pragma once

#include "layers.h"

namespace mobilenet {

// A node by generic.h, on flat buffers.
class GenericStep : public Step {
 public:
  const Graph *graph = nullptr;
  int node = 0;
  void run(const Frame &frame) const override;
};

// Between flat and blocked, either way; the write buffer may be the caller's output.
class ConvertStep : public Step {
 public:
  DType dtype = DType::float32;  // of the flat side
  void run(const Frame &frame) const override;
};

// A flat value to another flat buffer.
class CopyStep : public Step {
 public:
  void run(const Frame &frame) const override;
};

// add, mul (a gate of one pixel) and activation, on blocks.
class ElementwiseStep : public Step {
 public:
  Elementwise how;
  Bytes table;
  ElementwiseKernel function = nullptr;
  bool gate = false;
  void run(const Frame &frame) const override;
};

// The mean over all pixels, on blocks.
class MeanStep : public Step {
 public:
  Elementwise how;
  ElementwiseKernel function = nullptr;
  void run(const Frame &frame) const override;
};

// Softmax over the channels, of floats, on blocks.
class SoftmaxStep : public Step {
 public:
  float beta = 1;
  const Kernels *kernels = nullptr;
  void run(const Frame &frame) const override;
};

// A product of two matrices, of floats, on blocks: rows are pixels. The second is packed as weights are, each
// time.
class MatMulStep : public Step {
 public:
  bool transpose_second = false;
  const Kernels *kernels = nullptr;
  Epilogue epilogue;
  Bytes zeros;  // the bias
  void prepare(const Buffer &first, const Buffer &out);
  void run(const Frame &frame) const override;

 private:
  int64_t words_ = 0;
  void pack(const Buffer &second, const char *from, const Buffer &out, char *packed) const;
};

}  // namespace mobilenet
