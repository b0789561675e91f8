// The graph of a model file, checked: what src/mobilenet/graph/{ops,graph}.py are in Python.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <unordered_map>
#include <vector>

namespace mobilenet {

// Thrown while a model is loaded or planned, caught at the C interface; `code` is one of mobilenet.h's.
struct Failure {
  int code;
  std::string text;
};

[[noreturn]] void fail(int code, const char *format, ...) __attribute__((format(printf, 2, 3)));

enum class DType : uint8_t { float32, int8, uint8, int64, int32 };
size_t size_of(DType dtype);
const char *name_of(DType dtype);
inline bool is_integer(DType dtype) { return dtype == DType::int8 || dtype == DType::uint8; }

using Shape = std::vector<int64_t>;  // without the batch dimension; pictures are (height, width, channels)
int64_t elements(const Shape &shape);

// What flows along an edge. scale and zero_point mean something where dtype is int8 or uint8.
struct TensorType {
  Shape shape;
  DType dtype = DType::float32;
  float scale = 1;
  int32_t zero_point = 0;
};

enum class Kind : uint8_t {
  conv, depthwise_conv, dense, batch_norm, activation, add, mul, mean, average_pool, max_pool, pad, concat,
  resize, reshape, transpose, matmul, softmax, l2_normalise, argmax, quantise, dequantise
};
const char *name_of(Kind kind);

enum class Activation : uint8_t {
  none, relu, relu6, hard_swish, hard_sigmoid, hard_sigmoid_slim, sigmoid, prelu, gelu
};

// The fields of every operator; each kind uses the ones that its class in ops.py has.
struct Operator {
  Kind kind = Kind::activation;
  int64_t kernel[2] = {1, 1}, stride[2] = {1, 1}, dilation[2] = {1, 1};  // down, across
  int64_t padding[4] = {0, 0, 0, 0};                                     // top, bottom, left, right
  bool same = false;
  int64_t out_channels = 1, multiplier = 1, out_features = 1;
  bool bias = false;
  Activation activation = Activation::none;
  double epsilon = 0, beta = 1;
  bool constant = false, keep_axes = false, transpose_second = false;
  bool has_size = false, nearest = false, align_corners = false, half_pixel_centers = true;
  int64_t size[2] = {0, 0};
  Shape shape, axes;
};

// A weight. The bytes belong to the file image, or to `Model::owned` (folded weights).
struct Tensor {
  DType dtype = DType::float32;
  Shape shape;
  const void *data = nullptr;
  const float *f32() const { return static_cast<const float *>(data); }
  const int32_t *i32() const { return static_cast<const int32_t *>(data); }
};

struct Node {
  std::string name;
  Operator op;
  std::vector<int> inputs;  // values: 0 .. graph.inputs.size() - 1 are the inputs, then the nodes in order
  TensorType type;          // of what it writes
  std::unordered_map<std::string, Tensor> parameters;  // "weight", "bias", "weight_scale", ...
  bool has(const char *parameter) const { return parameters.count(parameter) != 0; }
  const Tensor &parameter(const char *parameter) const { return parameters.at(parameter); }
};

struct Named {
  std::string name;
  TensorType type;  // of inputs
  int value = 0;    // of outputs
};

struct Graph {
  std::vector<Named> inputs;
  std::vector<Node> nodes;  // in an order in which they can run
  std::vector<Named> outputs;
  std::vector<std::shared_ptr<const void>> copies;  // of weights that are not aligned in the file image
  const TensorType &type(int value) const {
    return value < int(inputs.size()) ? inputs[value].type : nodes[value - inputs.size()].type;
  }
};

// The shape that a node writes for inputs of these shapes (the rules of ops.py); throws Failure if they do not
// fit. Windows with `same` get their padding counted anew when `refit` is set, and are checked otherwise.
Shape output_shape(Operator &op, const std::vector<Shape> &inputs, bool refit);

// The same network for pictures of another size; throws Failure (MOBILENET_BAD_ARGUMENT) naming the node that
// cannot work at this size, and then leaves the graph useless. Limits are not checked: see check_limits in file.h.
void resize_graph(Graph &graph, int64_t height, int64_t width);

// Multiply-accumulates of one node for one picture, as ops.py counts; saturates at INT64_MAX.
int64_t macs_of(const Graph &graph, const Node &node);

// Batch norms and layer scales folded into the layer before them where nothing else reads it (graph/fold.py).
// Folded weights are kept in `owned`.
void fold(Graph &graph, std::vector<std::vector<float>> &owned);

}  // namespace mobilenet
