// Shape rules, weights and costs: the methods of the classes of src/mobilenet/graph/ops.py.
#include "operators.h"

#include <algorithm>
#include <limits>

#include "messages.h"
#include "mobilenet.h"

namespace mobilenet {
namespace {

[[noreturn]] void refuse(const std::string &text) { fail(MOBILENET_BAD_FILE, "%s", text.c_str()); }

const Shape &picture(const Shape &shape) {
  if (shape.size() != 3) refuse("needs an input of (height, width, channels), not " + shown(shape));
  return shape;
}

const Shape &with_axis(const Shape &shape) {
  if (shape.empty()) refuse("needs an input with at least one axis");
  return shape;
}

// TensorFlow's "SAME" padding along one axis: the smaller half goes first.
void same_sides(int64_t size, int64_t kernel, int64_t stride, int64_t dilation, int64_t sides[2]) {
  const int64_t outputs = (size + stride - 1) / stride;
  const int64_t total = std::max<int64_t>((outputs - 1) * stride + (kernel - 1) * dilation + 1 - size, 0);
  sides[0] = total / 2;
  sides[1] = total - total / 2;
}

void fit_padding(Operator &op, const Shape &shape, bool refit) {
  if (!op.same) return;
  int64_t sides[4];
  for (int axis = 0; axis < 2; ++axis)
    same_sides(shape[axis], op.kernel[axis], op.stride[axis], op.dilation[axis], sides + 2 * axis);
  if (refit) std::copy(sides, sides + 4, op.padding);
  else if (!std::equal(sides, sides + 4, op.padding))
    refuse("padding " + shown(Shape(op.padding, op.padding + 4)) + " is not SAME for an input of " + shown(shape));
}

Shape window_shape(Operator &op, const Shape &shape, int64_t channels, bool refit) {
  fit_padding(op, picture(shape), refit);
  Shape out(3, channels);
  for (int axis = 0; axis < 2; ++axis) {
    const int64_t size = shape[axis] + op.padding[2 * axis] + op.padding[2 * axis + 1];
    const int64_t extent = (op.kernel[axis] - 1) * op.dilation[axis] + 1;
    if (size < extent)
      refuse("kernel " + shown(Shape(op.kernel, op.kernel + 2)) + " is larger than the padded input of " +
             shown(shape));
    out[axis] = (size - extent) / op.stride[axis] + 1;
  }
  return out;
}

Shape mul_shape(const Operator &op, const std::vector<Shape> &inputs) {
  const size_t wanted = op.constant ? 1 : 2;
  if (inputs.size() != wanted)
    refuse("takes " + std::to_string(wanted) + " inputs, not " + std::to_string(inputs.size()));
  if (op.constant) return with_axis(inputs[0]);
  const Shape &a = inputs[0], &b = inputs[1];
  const bool fits = a.size() == b.size() && std::equal(a.begin(), a.end(), b.begin(), [](int64_t n, int64_t m) {
    return m == 1 || m == n;
  });
  if (!fits) refuse("inputs of " + shown(a) + " and " + shown(b) + " cannot be multiplied");
  return a;
}

Shape concat_shape(const std::vector<Shape> &inputs) {
  Shape out = with_axis(inputs[0]);
  out.back() = 0;
  for (const Shape &shape : inputs) {
    if (shape.size() != out.size() || !std::equal(out.begin(), out.end() - 1, shape.begin()))
      refuse("inputs of " + shown(inputs[0]) + " and " + shown(shape) + " cannot be joined along the last axis");
    out.back() += shape.back();
  }
  return out;
}

Shape resize_shape(const Operator &op, const std::vector<Shape> &inputs) {
  if (inputs.size() != (op.has_size ? 1 : 2)) refuse("takes one input if it has a size, two if it has none");
  const int64_t channels = picture(inputs[0])[2];
  if (op.has_size) return {op.size[0], op.size[1], channels};
  const Shape &like = picture(inputs[1]);
  return {like[0], like[1], channels};
}

Shape reshape_shape(const Operator &op, const std::vector<Shape> &inputs) {
  Shape shape;
  if (inputs.size() == 2) shape.assign(picture(inputs[1]).begin(), inputs[1].begin() + 2);
  shape.insert(shape.end(), op.shape.begin(), op.shape.end());
  const int64_t total = elements(inputs[0]);
  const auto rest = std::find(shape.begin(), shape.end(), -1);
  const Shape wanted = shape;
  if (rest != shape.end()) {
    *rest = 1;
    *rest = total / elements(shape);
  }
  if (elements(shape) != total) refuse("an input of " + shown(inputs[0]) + " does not fit into " + shown(wanted));
  return shape;
}

Shape transpose_shape(const Operator &op, const Shape &shape) {
  Shape sorted = op.axes, out;
  std::sort(sorted.begin(), sorted.end());
  bool fits = sorted.size() == shape.size();
  for (size_t i = 0; fits && i < sorted.size(); ++i) fits = sorted[i] == int64_t(i);
  if (!fits) refuse("axes " + shown(op.axes) + " are no order of the axes of " + shown(shape));
  for (const int64_t axis : op.axes) out.push_back(shape[axis]);
  return out;
}

Shape matmul_shape(const Operator &op, const Shape &a, const Shape &b) {
  if (a.size() != 2 || b.size() != 2 || a[1] != b[op.transpose_second ? 1 : 0])
    refuse("inputs of " + shown(a) + " and " + shown(b) + " cannot be multiplied as matrices");
  return {a[0], b[op.transpose_second ? 0 : 1]};
}

Shape shape_rule(Operator &op, const std::vector<Shape> &inputs, bool refit) {
  const Shape &first = inputs[0];
  switch (op.kind) {
    case Kind::conv: return window_shape(op, first, op.out_channels, refit);
    case Kind::depthwise_conv:
      return window_shape(op, first, saturating_product(picture(first)[2], op.multiplier), refit);
    case Kind::average_pool:
    case Kind::max_pool: return window_shape(op, first, picture(first)[2], refit);
    case Kind::dense: {
      Shape out = with_axis(first);
      out.back() = op.out_features;
      return out;
    }
    case Kind::add:
      if (inputs[1] != first)
        refuse("inputs of " + shown(first) + " and " + shown(inputs[1]) + " cannot be added");
      return first;
    case Kind::mul: return mul_shape(op, inputs);
    case Kind::mean:
      return op.keep_axes ? Shape{1, 1, picture(first)[2]} : Shape{picture(first)[2]};
    case Kind::pad:
      return {picture(first)[0] + op.padding[0] + op.padding[1], first[1] + op.padding[2] + op.padding[3],
              first[2]};
    case Kind::concat: return concat_shape(inputs);
    case Kind::resize: return resize_shape(op, inputs);
    case Kind::reshape: return reshape_shape(op, inputs);
    case Kind::transpose: return transpose_shape(op, first);
    case Kind::matmul: return matmul_shape(op, first, inputs[1]);
    case Kind::argmax: return Shape(first.begin(), with_axis(first).end() - 1);
    case Kind::batch_norm:
    case Kind::softmax:
    case Kind::l2_normalise: return with_axis(first);
    case Kind::activation:
    case Kind::quantise:
    case Kind::dequantise: return first;
  }
  return first;
}

bool is_float(DType dtype) { return dtype == DType::float32; }
bool is_int32(DType dtype) { return dtype == DType::int32; }

Expected floats(const char *name, Shape shape) { return {name, std::move(shape), is_float, "float32"}; }

std::vector<Expected> float_parameters(const Operator &op, const Shape &in, const Shape &out) {
  std::vector<Expected> expected;
  const auto bias = [&] {
    if (op.bias) expected.push_back(floats("bias", {out.back()}));
  };
  if (op.kind == Kind::conv) {
    expected.push_back(floats("weight", {op.out_channels, op.kernel[0], op.kernel[1], in[2]}));
    bias();
  } else if (op.kind == Kind::depthwise_conv) {
    expected.push_back(floats("weight", {op.kernel[0], op.kernel[1], out[2]}));
    bias();
  } else if (op.kind == Kind::dense) {
    expected.push_back(floats("weight", {op.out_features, in.back()}));
    bias();
  } else if (op.kind == Kind::batch_norm) {
    for (const char *name : {"gamma", "beta", "mean", "variance"}) expected.push_back(floats(name, {in.back()}));
  } else if (op.kind == Kind::mul && op.constant) {
    expected.push_back(floats("weight", {in.back()}));
  }
  if (op.activation == Activation::prelu) expected.push_back(floats("alpha", {out.back()}));
  return expected;
}

void check_dtypes(const Graph &graph, const Node &node) {
  const DType out = node.type.dtype;
  bool all = true, any = false, fits = true;
  for (const int input : node.inputs) {
    const DType dtype = graph.type(input).dtype;
    (is_integer(dtype) ? any : all) = is_integer(dtype);
    if (dtype == DType::int64) refuse("no operator reads int64");
  }
  if (node.op.kind == Kind::argmax) fits = out == DType::int64;
  else if (node.op.kind == Kind::dequantise) fits = all && out == DType::float32;
  else if (node.op.kind == Kind::quantise) fits = is_integer(out);
  else fits = out != DType::int64 && (is_integer(out) ? all : !any);
  if (!fits) refuse(std::string("cannot turn what it reads into the dtype ") + name_of(out));
}

}  // namespace

Arity arity_of(Kind kind) {
  switch (kind) {
    case Kind::add:
    case Kind::matmul: return {2, 2};
    case Kind::mul:
    case Kind::resize:
    case Kind::reshape: return {1, 2};
    case Kind::concat: return {1, 64};
    default: return {1, 1};
  }
}

int64_t saturating_product(int64_t a, int64_t b) {
  int64_t product = 0;
  return __builtin_mul_overflow(a, b, &product) ? std::numeric_limits<int64_t>::max() : product;
}

int64_t elements(const Shape &shape) {
  int64_t count = 1;
  for (const int64_t size : shape) count = saturating_product(count, size);
  return count;
}

void check_shape(const Shape &shape) {
  const bool positive = std::all_of(shape.begin(), shape.end(), [](int64_t n) { return n >= 1; });
  if (!positive || elements(shape) > MAX_ELEMENTS)
    refuse("shape " + shown(shape) + " must be sizes above 0 of at most 2^31 elements");
  if (shape.size() > MAX_RANK) refuse("shape " + shown(shape) + " has more than 8 axes");
}

Shape output_shape(Operator &op, const std::vector<Shape> &inputs, bool refit) {
  const Arity arity = arity_of(op.kind);
  if (inputs.size() < arity.least || inputs.size() > arity.most)
    refuse("takes " + std::to_string(arity.least) + " to " + std::to_string(arity.most) + " inputs, not " +
           std::to_string(inputs.size()));
  Shape shape = shape_rule(op, inputs, refit);
  check_shape(shape);
  if (op.activation == Activation::prelu) with_axis(shape);
  return shape;
}

int64_t macs_of(const Graph &graph, const Node &node) {
  const Operator &op = node.op;
  const int64_t outputs = elements(node.type.shape);
  const int64_t window = saturating_product(op.kernel[0], op.kernel[1]);
  const int64_t last = node.inputs.empty() || graph.type(node.inputs[0]).shape.empty()
                           ? 1
                           : graph.type(node.inputs[0]).shape.back();
  switch (op.kind) {
    case Kind::conv: return saturating_product(outputs, saturating_product(window, last));
    case Kind::depthwise_conv: return saturating_product(outputs, window);
    case Kind::dense:
    case Kind::matmul: return saturating_product(outputs, last);
    default: return 0;
  }
}

std::vector<Expected> expected_parameters(const Graph &graph, const Node &node) {
  const TensorType &input = graph.type(node.inputs[0]);
  std::vector<Expected> expected = float_parameters(node.op, input.shape, node.type.shape);
  if (expected.empty() || !is_integer(input.dtype)) return expected;
  const Kind kind = node.op.kind;
  const bool linear = kind == Kind::conv || kind == Kind::depthwise_conv || kind == Kind::dense;
  if (!linear || node.op.activation == Activation::prelu)
    refuse("node '" + shown(node.name) + "' (" + name_of(kind) + ") has no integer form");
  expected[0].accepts = is_integer;
  expected[0].dtypes = "int8 or uint8";
  for (size_t i = 1; i < expected.size(); ++i) {  // the bias
    expected[i].accepts = is_int32;
    expected[i].dtypes = "int32";
  }
  expected.push_back(floats("weight_scale", {node.type.shape.back()}));
  expected.back().or_single = true;
  expected.push_back({"weight_zero_point", {1}, is_int32, "int32"});
  return expected;
}

void check_parameter(const Node &node, const Expected &expected, const Tensor &tensor, int code) {
  const std::string name = "tensor '" + shown(node.name) + "." + expected.name + "'";
  const bool single = expected.or_single && tensor.shape == Shape{1};
  if (!single && tensor.shape != expected.shape)
    fail(code, "%s has shape %s; the graph needs %s", name.c_str(), shown(tensor.shape).c_str(),
         shown(expected.shape).c_str());
  if (!expected.accepts(tensor.dtype))
    fail(code, "%s has dtype %s; the graph needs %s", name.c_str(), name_of(tensor.dtype), expected.dtypes);
}

void infer_type(const Graph &graph, Node &node, bool refit, int code) {
  std::vector<Shape> inputs;
  for (const int input : node.inputs) inputs.push_back(graph.type(input).shape);
  try {
    node.type.shape = output_shape(node.op, inputs, refit);
    check_dtypes(graph, node);
  } catch (const Failure &failure) {
    fail(code, "node '%s' (%s): %s", shown(node.name).c_str(), name_of(node.op.kind), failure.text.c_str());
  }
}

}  // namespace mobilenet
