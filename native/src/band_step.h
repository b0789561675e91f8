// Layers that run together, in bands of rows or in slices of channels, so that what lies between them is never
// whole in memory: [a convolution] -> [a depthwise convolution] -> [a pointwise convolution + residual]. In front
// of a convolution that is not pointwise another one may make the rows that it reads (`feed`).
#pragma once

#include "layers.h"

namespace mobilenet {

// What the first layer reads if that is the caller's picture, row-major.
struct PictureSource {
  bool present = false;
  DType dtype = DType::float32;
  bool quantise = false;  // floats become bytes: rint(x * inverse) + zero
  float inverse = 1;
  int zero = 0;
};

class BandStep : public Step {
 public:
  std::unique_ptr<BandStep> feed;  // of `expand` alone
  std::optional<GemmLayer> expand;
  std::optional<DepthwiseLayer> depthwise;
  std::optional<GemmLayer> project;
  PictureSource picture;
  Element element = Element::f32;
  int pad_expand = 0, pad_depthwise = 0;  // the byte of padding (integers)
  int64_t height0 = 0, width0 = 0, channels0 = 0;  // of the source
  int64_t height1 = 0, width1 = 0, channels1 = 0;  // after the expansion
  int64_t height2 = 0, width2 = 0, channels2 = 0;  // of the destination
  int residual = -1;       // buffer
  bool by_channels = false;  // slices of channels of the whole picture; else bands of rows
  int band_rows = 1, slice_channels = 32;
  int panel = 32;
  int over_read = 0;
  const Kernels *kernels = nullptr;

  // Lays out the scratch memory; call when all of the above is set. False if it is too much for one step.
  bool prepare();
  void run(const Frame &frame) const override;

 private:
  struct Worker;
  // Bytes and places in the scratch memory of a thread.
  int64_t pixel_ = 0;
  bool overlapping_ = false;  // rows of the depthwise convolution see each the next stride_down rows
  bool one_slice_ = false;  // then rows of the source are loaded one by one, as the expansion reaches them
  int64_t rows0_ = 0, row0_bytes_ = 0, phase_bytes_ = 0, block0_bytes_ = 0;  // ring of the expansion's input
  int64_t columns0_ = 0;  // of a picture's row with its padding
  int64_t rows1_ = 0, row1_bytes_ = 0, block1_bytes_ = 0, blocks1_ = 0;  // ring of the depthwise's input
  int64_t band_block_bytes_ = 0;
  size_t feed_scratch_ = 0, fed_row_ = 0, ring0_ = 0, zero0_ = 0, line_ = 0, window_ = 0, ring1_ = 0,
         zero1_ = 0, band_ = 0, sums_ = 0, runs_ = 0, project_runs_ = 0, pointers_ = 0;
};

// A pointwise convolution or dense layer, alone.
class PointwiseStep : public Step {
 public:
  GemmLayer layer;
  int residual = -1;
  bool float_out = false;
  const Kernels *kernels = nullptr;
  void run(const Frame &frame) const override;
};

}  // namespace mobilenet
