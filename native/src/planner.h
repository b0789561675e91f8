// Turns a folded graph into steps: which nodes run together, in which form each value is kept.
#pragma once

#include "band_step.h"
#include "simple_steps.h"

namespace mobilenet {

class Planner {
 public:
  Planner(Plan &plan, const PlanOptions &options);
  void run();

 private:
  struct Chain;  // nodes that one BandStep runs

  // The graph.
  const Node &node_of(int value) const { return graph_.nodes[size_t(value) - graph_.inputs.size()]; }
  int value_of(const Node &node) const { return int(&node - graph_.nodes.data()) + int(graph_.inputs.size()); }
  const Node *only_reader(int value) const;  // nullptr if there is another, or if it is an output
  Element element_of(const TensorType &type) const;
  bool has_blocks(const TensorType &type) const;  // of a shape that can be kept in blocks

  // Values and their buffers.
  int flat(int value);
  int blocked(int value);
  int new_buffer(int value, bool in_blocks);
  Step &add(std::unique_ptr<Step> step, std::vector<int> nodes, std::vector<int> reads, int write);
  void done(const Node &node) { done_[size_t(value_of(node))] = true; }

  // Nodes; each returns false if no kernel fits.
  bool plan_quantise(const Node &node);
  bool plan_linear(const Node &node);
  bool plan_pointwise(const Node &node, const Node *after);
  bool plan_chain(const Node &node, const Node *after);
  bool plan_elementwise(const Node &node);
  bool plan_mean(const Node &node);
  bool plan_attention(const Node &node);
  bool plan_alias(const Node &node);
  void plan_generic(const Node &node);
  void plan_outputs();

  const Node *table_after(const Node &node) const;
  bool begin(Chain &chain, const Node &node, const Node *after, int &source);
  void feed(Chain &chain, int source);
  bool extend(Chain &chain);
  const Node *residual_of(const Node &last, int end, GemmLayer &layer, int &other) const;
  bool picture_source(const Node &first, int value, BandStep &step, int &source);
  void choose_bands(BandStep &step, bool may_project) const;

  Plan &plan_;
  const PlanOptions &options_;
  const Graph &graph_;
  std::vector<std::vector<const Node *>> readers_;  // by value
  std::vector<int> output_uses_, flat_, blocked_;   // by value
  std::vector<bool> done_;
};

}  // namespace mobilenet
