// Which rule answers which node, how its work is split, and what it needs.
#include "generic.h"

#include "generic_rules.h"

namespace mobilenet {
namespace {

using namespace generic;

bool reads_integers(const Graph &graph, const Node &node) { return is_integer(graph.type(node.inputs[0]).dtype); }

bool same_quantisation(const TensorType &a, const TensorType &b) {
  return a.dtype == b.dtype && a.scale == b.scale && a.zero_point == b.zero_point;
}

// Rule 3: activations that only limit the range.
bool fused(Activation activation) {
  return activation == Activation::none || activation == Activation::relu || activation == Activation::relu6;
}

bool refuse(std::string &why, const char *text) {
  why = text;
  return false;
}

bool supports_weights(const Node &node, std::string &why) {
  const Tensor *zero = find(node, "weight_zero_point");
  if (zero && (zero->i32()[0] < -128 || zero->i32()[0] > 255))
    return refuse(why, "the zero point of the weights is outside -128..255");
  return true;
}

bool supports_integer(const Graph &graph, const Node &node, std::string &why) {
  const Operator &op = node.op;
  const TensorType &input = graph.type(node.inputs[0]);
  AddFactors factors;
  switch (op.kind) {
    case Kind::batch_norm: return refuse(why, "there is no integer batch_norm");
    case Kind::activation:
      return op.activation != Activation::prelu || refuse(why, "there is no integer prelu");
    case Kind::mul:
      if (op.constant) return refuse(why, "there is no integer product with a constant");
      break;
    case Kind::softmax:
      if (op.beta < 0) return refuse(why, "there is no integer softmax with a beta below 0");
      break;
    case Kind::add:
      if (!add_factors(input, graph.type(node.inputs[1]), node.type, factors))
        return refuse(why, "the scales of an integer sum are too far from its output's");
      break;
    case Kind::average_pool:
    case Kind::max_pool:
    case Kind::pad:
    case Kind::resize:
    case Kind::reshape:
    case Kind::transpose:
      if (!same_quantisation(input, node.type))
        return refuse(why, "it must keep its input's dtype, scale and zero point; put a quantise node after it");
      break;
    default: break;
  }
  if (!fused(op.activation))
    return refuse(why, "an integer operator carries no activation but relu and relu6; make it a node of its own");
  return supports_weights(node, why);
}

// The elements of the outermost axis of what a node writes.
int64_t outermost(const Node &node) { return node.type.shape.empty() ? 1 : node.type.shape[0]; }

void run_float(const Call &call) {
  switch (call.op().kind) {
    case Kind::conv: return float_conv(call);
    case Kind::depthwise_conv: return float_depthwise_conv(call);
    case Kind::dense: return float_dense(call);
    case Kind::matmul: return float_matmul(call);
    case Kind::batch_norm: return float_batch_norm(call);
    case Kind::activation: return float_activation(call);
    case Kind::add: return float_add(call);
    case Kind::mul: return float_mul(call);
    case Kind::mean: return float_mean(call);
    case Kind::softmax: return float_softmax(call);
    case Kind::l2_normalise: return float_l2_normalise(call);
    case Kind::argmax: return float_argmax(call);
    case Kind::quantise: return quantise(call);
    default: return;
  }
}

void run_integer(const Call &call) {
  switch (call.op().kind) {
    case Kind::conv: return integer_conv(call);
    case Kind::depthwise_conv: return integer_depthwise_conv(call);
    case Kind::dense: return integer_dense(call);
    case Kind::matmul: return integer_matmul(call);
    case Kind::activation: return integer_activation(call);
    case Kind::add: return integer_add(call);
    case Kind::mul: return integer_mul(call);
    case Kind::mean: return integer_mean(call);
    case Kind::softmax: return integer_softmax(call);
    case Kind::l2_normalise: return integer_l2_normalise(call);
    case Kind::argmax: return integer_argmax(call);
    case Kind::quantise: return quantise(call);
    case Kind::dequantise: return dequantise(call);
    default: return;
  }
}

}  // namespace

bool generic_supports(const Graph &graph, const Node &node, std::string &why) {
  return !reads_integers(graph, node) || supports_integer(graph, node, why);
}

size_t generic_scratch(const Graph &graph, const Node &node) {
  const bool integer = reads_integers(graph, node);
  switch (node.op.kind) {
    case Kind::conv:
    case Kind::depthwise_conv:
    case Kind::dense:
    case Kind::matmul: return integer ? integer_linear_scratch(graph, node) : linear_scratch(graph, node);
    case Kind::batch_norm: return size_t(last_axis(node.type.shape)) * sizeof(float);
    case Kind::average_pool: return integer ? size_t(node.type.shape[2]) * sizeof(int64_t) : 0;
    case Kind::resize: return resize_scratch(graph, node);
    default: return 0;
  }
}

int64_t generic_parts(const Graph &graph, const Node &node) {
  const Shape &in = graph.type(node.inputs[0]).shape, &out = node.type.shape;
  switch (node.op.kind) {
    case Kind::conv:
    case Kind::depthwise_conv:
    case Kind::average_pool:
    case Kind::max_pool:
    case Kind::resize:
    case Kind::pad:
    case Kind::transpose:
    case Kind::matmul: return outermost(node);
    case Kind::dense: return rows_of(in) == 1 ? out.back() : rows_of(in);
    case Kind::mean: return (in[2] + MEAN_CHANNELS - 1) / MEAN_CHANNELS;
    case Kind::reshape: return (elements(out) * int64_t(size_of(node.type.dtype)) + COPY_BYTES - 1) / COPY_BYTES;
    default: return rows_of(in);
  }
}

void generic_run(const Graph &graph, const Node &node, const void *const *inputs, void *output, void *scratch,
                 int64_t first, int64_t last) {
  if (first >= last) return;
  const Call call{graph, node, inputs, output, static_cast<char *>(scratch), first, last};
  switch (node.op.kind) {
    case Kind::average_pool: return average_pool(call);
    case Kind::max_pool: return max_pool(call);
    case Kind::resize: return resize(call);
    case Kind::pad: return pad(call);
    case Kind::concat: return concat(call);
    case Kind::reshape: return reshape(call);
    case Kind::transpose: return transpose(call);
    default: return reads_integers(graph, node) ? run_integer(call) : run_float(call);
  }
}

}  // namespace mobilenet
