// Batch norm and layer scale folded into the layer before them: what src/mobilenet/graph/fold.py does.
#include <cmath>

#include "graph.h"

namespace mobilenet {
namespace {

class Folding {
 public:
  Folding(Graph &graph, std::vector<std::vector<float>> &owned)
      : graph_(graph), owned_(owned), readers_(graph.inputs.size() + graph.nodes.size()) {
    for (const Node &node : graph.nodes)
      for (const int value : node.inputs) ++readers_[value];
    for (const Named &output : graph.outputs) ++readers_[output.value];
  }

  void run() {
    const int inputs = int(graph_.inputs.size());
    for (int value = 0; value < inputs; ++value) renamed_.push_back(value);
    std::vector<Node> kept;
    kept.reserve(graph_.nodes.size());
    for (Node &node : graph_.nodes) {
      const int source = node.inputs[0], layer = renamed_[source];
      if (layer >= inputs && readers_[source] == 1 && can_fold(kept[layer - inputs], node)) {
        fold_into(kept[layer - inputs], node);
        renamed_.push_back(layer);
        continue;
      }
      for (int &value : node.inputs) value = renamed_[value];
      renamed_.push_back(inputs + int(kept.size()));
      kept.push_back(std::move(node));
    }
    for (Named &output : graph_.outputs) output.value = renamed_[output.value];
    graph_.nodes = std::move(kept);
  }

 private:
  static bool can_fold(const Node &layer, const Node &node) {
    const bool affine = node.op.kind == Kind::batch_norm || (node.op.kind == Kind::mul && node.op.constant);
    const Kind kind = layer.op.kind;
    const bool foldable = kind == Kind::conv || kind == Kind::depthwise_conv || kind == Kind::dense;
    return affine && foldable && layer.op.activation == Activation::none && layer.type.dtype == DType::float32;
  }

  // The node as x * scale + shift, one of each a channel.
  static void affine(const Node &node, std::vector<double> &scale, std::vector<double> &shift) {
    if (node.op.kind == Kind::mul) {
      for (size_t c = 0; c < scale.size(); ++c) scale[c] = node.parameter("weight").f32()[c];
      return;
    }
    const float *gamma = node.parameter("gamma").f32(), *beta = node.parameter("beta").f32();
    const float *mean = node.parameter("mean").f32(), *variance = node.parameter("variance").f32();
    for (size_t c = 0; c < scale.size(); ++c) {
      scale[c] = gamma[c] / std::sqrt(variance[c] + node.op.epsilon);
      shift[c] = beta[c] - mean[c] * scale[c];
    }
  }

  float *own(size_t count) {
    owned_.emplace_back(count);
    return owned_.back().data();
  }

  void fold_into(Node &layer, Node &node) {
    const size_t channels = size_t(layer.type.shape.back());
    std::vector<double> scale(channels), shift(channels);
    affine(node, scale, shift);
    Tensor &weight = layer.parameters.at("weight");
    const size_t count = size_t(elements(weight.shape)), each = count / channels;
    float *scaled = own(count);
    const bool last = layer.op.kind == Kind::depthwise_conv;  // channels are the last axis, else the first
    for (size_t i = 0; i < count; ++i) scaled[i] = float(weight.f32()[i] * scale[last ? i % channels : i / each]);
    weight.data = scaled;
    float *bias = own(channels);
    for (size_t c = 0; c < channels; ++c) {
      const double before = layer.op.bias ? layer.parameter("bias").f32()[c] : 0.0;
      bias[c] = float(before * scale[c] + shift[c]);
    }
    layer.parameters["bias"] = {DType::float32, {int64_t(channels)}, bias};
    layer.op.bias = true;
    layer.op.activation = node.op.activation;
    if (node.has("alpha")) layer.parameters["alpha"] = node.parameters.at("alpha");
  }

  Graph &graph_;
  std::vector<std::vector<float>> &owned_;
  std::vector<int> readers_;
  std::vector<int> renamed_;  // by old value
};

}  // namespace

void fold(Graph &graph, std::vector<std::vector<float>> &owned) { Folding(graph, owned).run(); }

}  // namespace mobilenet
