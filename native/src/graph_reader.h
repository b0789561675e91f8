// The graph of a model file's description: names, operators, an order in which they can run, shapes.
#pragma once

#include "graph.h"
#include "json.h"

namespace mobilenet {

// Throws Failure (MOBILENET_BAD_FILE). The nodes have no weights yet.
Graph read_graph(json::Value value);

}  // namespace mobilenet
