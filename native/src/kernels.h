// The kernels of one instruction set, as a table of functions; kernels/*.h write them once over the vectors of
// isa/*.cc. All tensors here are in blocks of 16 channels, [channels / 16][pixels][16], of float, bfloat16 or
// uint8; lanes past the last channel hold finite rubbish.
#pragma once

#include <cstddef>
#include <cstdint>

namespace mobilenet {

constexpr int BLOCK = 16;  // channels

enum class Element : uint8_t { f32, bf16, u8 };
constexpr size_t size_of(Element element) {
  return element == Element::f32 ? 4 : element == Element::bf16 ? 2 : 1;
}

// Multiply-accumulates read 4 bytes of a pixel at a time: 1 float, 2 bfloat16 or 4 uint8 channels.
constexpr int channels_in_word(Element element) { return int(4 / size_of(element)); }

// What becomes of a sum of products. Vectors are padded to a multiple of 16 channels.
struct Epilogue {
  const void *bias = nullptr;      // float or int32; what a sum starts from
  int activation = 0;              // an Activation, of floats
  const float *alpha = nullptr;    // of prelu
  const float *scale = nullptr;    // of integers: rint(float(sum) * scale) + zero, within low .. high
  int32_t zero = 0;
  uint8_t low = 0, high = 255;
  const uint8_t *table = nullptr;  // of integers: 256 entries, looked up last, before the residual
  // Integer weights with a zero point: sum += weight_zero * (-sum of the pixel's inputs), see `row_sums`.
  const int32_t *row_sums = nullptr;
  int32_t weight_zero = 0;
  // Residual: floats are added, then `activation_after` applies; integers as rule 6 of reference_integer.py says:
  // (q * add_self + other * add_other + add_offset) >> add_shift, + add_zero, within add_low .. add_high.
  bool residual = false;
  int activation_after = 0;
  int32_t add_self = 0, add_other = 0, add_offset = 0, add_shift = 0, add_zero = 0;
  uint8_t add_low = 0, add_high = 255;
};

// One run of input channels that lie side by side: where it begins, from the tile's first pixel, and its length.
struct Run {
  int32_t offset;  // bytes
  int32_t words;   // 4 bytes each
};

// out[pixel][c] = epilogue(bias[c] + sum over runs of a[pixel][...] * weights[...][c]), c in [first, last).
struct GemmCall {
  const char *a;          // the first pixel; pixels are 16 elements apart
  const Run *runs;
  int run_count;
  int64_t pixels;
  const char *weights;    // packed: for panels of channels, [words][width of the panel], 4 bytes each
  int64_t words;          // of all runs together
  char *out;              // the first pixel of block 0
  int64_t out_block;      // bytes from block to block
  const char *residual;   // as out; `out` itself where there is none
  int64_t residual_block;
  int first, last;        // output channels; first is a multiple of 32, last too or the number of channels
  const Epilogue *epilogue;
  bool float_out = false;  // a single pixel of bfloat16 written as floats
  // More than one row of `pixels`: bytes from row to row of a, and of out and residual.
  int64_t rows = 1, a_row = 0, out_row = 0;
};

struct DepthwiseCall {
  const char *const *rows;  // one for each row of the kernel: the first pixel that the first output sees
  int64_t row_step;         // how many rows further those of the next output row are
  int64_t output_rows;      // one after the other in `out`
  int kernel_height, kernel_width;
  int stride, dilation;     // across
  int64_t pixels;           // of one output row, as they are in `out`: side by side
  const char *weights;      // packed for this block
  char *out;
  int channels;             // of this block, 1 .. 16
  int block;                // number of this block, for the epilogue's vectors
  const Epilogue *epilogue;
};

// A kernel that does one row, for all rows of a call.
template <void (*ROW)(const DepthwiseCall &), int ELEMENT_BYTES>
void each_row(const DepthwiseCall &call) {
  DepthwiseCall row = call;
  for (int64_t y = 0; y < call.output_rows; y++) {
    ROW(row);
    row.rows += call.row_step;
    row.out += call.pixels * BLOCK * ELEMENT_BYTES;
  }
}

// Constants of what works channel by channel. Of floats: activation, scale (of a mean). Of integers: see the rules
// of reference_integer.py; all zero points are those of stored bytes.
struct Elementwise {
  int activation = 0;
  float scale = 1;
  int32_t zero_a = 0, zero_b = 0, zero = 0, low = 0, high = 255;
  int32_t factor_a = 0, factor_b = 0, offset = 0, shift = 0;
  const uint8_t *table = nullptr;
};
// One block: a, b (the other summand, or a gate of one pixel) and out are [pixels][16].
using ElementwiseKernel = void (*)(const char *a, const char *b, char *out, int64_t pixels,
                                   const Elementwise &how);

struct PictureKernels;

struct Kernels {
  const char *name;
  const PictureKernels *pictures;  // of picture.h
  bool has[3];  // by Element
  void (*gemm[3])(const GemmCall &call);
  void (*gemv[3])(const GemmCall &call);  // for a single pixel
  void (*depthwise[3])(const DepthwiseCall &call);
  ElementwiseKernel mul_gate[3], add[3], activate[3], mean[3];
  // sums[pixel] = factor * (sum of the pixel's uint8 inputs - offset each), over runs of so many channels.
  void (*row_sums)(const char *a, const Run *runs, const int *channels, int run_count, int64_t pixels,
                   int32_t factor, int32_t offset, int32_t *sums);
  // Softmax over the channels of each pixel, of floats: exp(beta * (x - largest)) / sum.
  void (*softmax[3])(const char *a, char *out, int64_t pixels, int64_t channels, int64_t block_bytes, float beta);
  // Floats of a picture to uint8, as rule 8 of reference_integer.py says with the stored zero point, or to
  // bfloat16.
  void (*quantise_line)(const float *from, int64_t count, float inverse, int32_t zero, char *to);
  void (*narrow_line)(const float *from, int64_t count, char *to);
  size_t (*depthwise_weights[3])(int kernel_height, int kernel_width);  // bytes for a block
  // weights: [kernel_height][kernel_width][16] float or int8
  void (*pack_depthwise[3])(const void *weights, int kernel_height, int kernel_width, char *packed);
  int panel[3];           // the widest panel of gemm: 32 or 16 channels
  int word_bytes[3];      // bytes of a packed weight that belong to one word of 4 input bytes
  // How int8 weights are packed for one word of one channel where word_bytes[u8] is not 4: then they are copied.
  void (*pack_word)(const int8_t weights[4], char *packed);
  // Windows of 3 rows of a picture, 8 to 10 bytes of each, as channels: out[block][pixel][16] is what lies side
  // by side for each pixel, `bytes` of each row, from `step` * pixel on; the rest is rubbish. Reads 64 bytes from
  // where a window begins. nullptr: there is none.
  void (*unfold_3_rows)(const char *const *rows, int64_t step, int bytes, int64_t pixels, char *out,
                        int64_t out_block);
  int32_t input_offset;   // what the int8 kernels subtract from each stored input: 0, or 128 where they need int8
  int tile_pixels[3];
  int pixels_over_read[3];  // how many pixels past a row's last a depthwise kernel may read
};

// By name; nullptr if this build does not have it or this processor cannot run it.
const Kernels *find_kernels(const char *name);

}  // namespace mobilenet
