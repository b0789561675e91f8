// The rules of the operators: what their fields may be, what they read and write, which weights they need.
#pragma once

#include <string_view>

#include "graph.h"
#include "json.h"

namespace mobilenet {

constexpr int64_t MAX_ELEMENTS = int64_t(1) << 31;  // of one value
constexpr int64_t MAX_FIELD = int64_t(1) << 20;     // of one size, stride or padding
constexpr size_t MAX_RANK = 8;                      // what mobilenet_tensor holds
constexpr int64_t MAX_NODES = 10'000;

// What a graph expects of one weight.
struct Expected {
  const char *name;
  Shape shape;
  bool (*accepts)(DType dtype);
  const char *dtypes;      // what `accepts` accepts, for messages
  bool or_single = false;  // a tensor of shape (1), one value for all channels, is accepted too
};

// The operator that a graph's JSON object describes; throws Failure naming the field.
Operator read_operator(json::Value value);

// Fewest and most inputs.
struct Arity {
  size_t least, most;
};
Arity arity_of(Kind kind);

// Throws Failure if a shape has a size below 1, too many axes or too many elements.
void check_shape(const Shape &shape);

// The weights of a node; throws Failure if the operator has no integer form.
std::vector<Expected> expected_parameters(const Graph &graph, const Node &node);

// Throws Failure with `code`, naming the tensor "<node>.<parameter>", if its shape or dtype does not fit.
void check_parameter(const Node &node, const Expected &expected, const Tensor &tensor, int code);

// Counts what a node writes from what it reads, checks that dtypes and shapes fit, and sets node.type.shape.
// Throws Failure with `code` and the node's name.
void infer_type(const Graph &graph, Node &node, bool refit, int code);

// A checked product: INT64_MAX if it is too large. The factors are not negative.
int64_t saturating_product(int64_t a, int64_t b);

}  // namespace mobilenet
