// Convolutions and dense layers as kernels take them: packed weights and what becomes of their sums.
#pragma once

#include <optional>

#include "plan.h"

namespace mobilenet {

// The window of a convolution over rows and columns.
struct WindowShape {
  int kernel_height = 1, kernel_width = 1, stride_down = 1, stride_across = 1;
  int dilation_down = 1, dilation_across = 1, pad_top = 0, pad_left = 0;
  bool padded = false;  // on any side
  bool pointwise() const {
    return kernel_height == 1 && kernel_width == 1 && stride_down == 1 && stride_across == 1 && !padded;
  }
  int reach_down() const { return (kernel_height - 1) * dilation_down + 1; }
  int reach_across() const { return (kernel_width - 1) * dilation_across + 1; }
};
WindowShape window_of(const Operator &op);

// Vectors that an Epilogue points to live here.
struct Finish {
  Epilogue epilogue;
  Bytes bias, scale, alpha, table;
};

// How the window of a convolution over a picture becomes channels that lie side by side: not at all, the columns
// of each of its rows, or all of it (in fewer words, by Kernels::unfold_3_rows).
enum class Unfolded : uint8_t { no, rows, window };

// A matrix product: a convolution, dense layer or pointwise convolution.
struct GemmLayer {
  WindowShape window;
  Element element = Element::f32;
  int in_channels = 0, out_channels = 0;
  Unfolded unfolded = Unfolded::no;
  std::vector<int> run_words;   // of the runs, in the order of the weights
  std::vector<int> run_channels;
  int64_t words = 0;
  char *weights = nullptr;
  size_t weight_bytes = 0;
  Finish finish;
  bool needs_row_sums = false;
};

struct DepthwiseLayer {
  WindowShape window;
  Element element = Element::f32;
  int channels = 0;
  int sets = 1;           // how many int8 weights one weight is the sum of
  size_t block_bytes = 0; // of packed weights
  char *weights = nullptr;
  size_t weight_bytes = 0;
  Finish finish;
};

// How many channels the next panel of packed weights has, with `rest` to go.
int panel_width(int rest, int widest);

// The byte that stands for real zero in blocks: the zero point, of int8 plus 128.
int stored_zero(const TensorType &type);

// Packs a conv or dense node into `memory`. `after`: an activation node whose table follows, or nullptr. Returns
// nothing if no kernel can compute it exactly (then generic.h does).
std::optional<GemmLayer> make_gemm(const Graph &graph, const Node &node, const Node *after, Element element,
                                   bool picture, const Kernels &kernels, Store &memory);
std::optional<DepthwiseLayer> make_depthwise(const Graph &graph, const Node &node, const Node *after,
                                             Element element, const Kernels &kernels, Store &memory);

// Lets the epilogue add another tensor as the add node says; false if it cannot. `self` is what the layer writes.
bool make_residual(const TensorType &self, const TensorType &other, const Node &add, Epilogue &epilogue);

// An activation node's table between bytes in blocks.
void blocked_table(Activation activation, const TensorType &input, const TensorType &output, uint8_t table[256]);

// rint(float(...)) limits of an integer output in blocks, with its activation; false if it needs a table.
bool integer_limits(Activation activation, const TensorType &output, uint8_t &low, uint8_t &high);

}  // namespace mobilenet
