// Every operator of the closed set in plain scalar code on row-major arrays: what kernels are tested against, and
// what runs where no kernel fits. It computes what run/reference_float.py and run/reference_integer.py define.
#pragma once

#include "graph.h"

namespace mobilenet {

// True if generic_run has a rule for this node; else `why` says what is missing (an integer prelu, ...).
bool generic_supports(const Graph &graph, const Node &node, std::string &why);

// Bytes of scratch that generic_run needs for this node (for one picture).
size_t generic_scratch(const Graph &graph, const Node &node);

// One picture. inputs[i] and output are row-major arrays of the types of the graph (channels last, no padding).
// Allocates nothing, throws nothing. `first` and `last` limit the work to a part of the outermost output index
// (rows of a picture; [0, generic_parts) for everything), so that threads can share a node; parts write disjoint
// outputs. Float sums are made in float32 in an order that does not depend on the parts.
int64_t generic_parts(const Graph &graph, const Node &node);
void generic_run(const Graph &graph, const Node &node, const void *const *inputs, void *output, void *scratch,
                 int64_t first, int64_t last);

// float(x) of an activation that is not prelu, in float32 and in float64.
float activate(Activation activation, float x);
double activate(Activation activation, double x);

// Rule 9 of reference_integer.py: the table of an integer activation, indexed by the stored byte.
void activation_table(Activation activation, const TensorType &input, const TensorType &output,
                      uint8_t table[256]);

}  // namespace mobilenet
