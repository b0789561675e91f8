// The only reader of untrusted bytes: a model file (docs/format.md) to a checked graph.
#pragma once

#include "graph.h"

namespace mobilenet {

struct Limits {
  uint64_t memory;  // bytes of weights and of any one value
  uint64_t macs;    // of one picture
};

// Reads and checks all of it: the safetensors header, the JSON, every operator, every shape, that every parameter
// is there with the shape and dtype that the graph needs and none is left over. The tensors point into `bytes`.
// Throws Failure (MOBILENET_BAD_FILE, MOBILENET_UNSUPPORTED or MOBILENET_NO_MEMORY) or std::bad_alloc.
Graph read_model(const uint8_t *bytes, size_t size, const Limits &limits);

// Throws Failure if a value of the graph takes more memory than `limits` allow, or the graph more operations. For
// a graph that was resized; read_model has done it.
void check_limits(const Graph &graph, const Limits &limits);

}  // namespace mobilenet
