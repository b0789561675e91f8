// How messages show what came from a file.
#pragma once

#include <string>
#include <string_view>

#include "graph.h"

namespace mobilenet {

// A name as a message can hold it: at most 80 bytes, whole characters, no control characters.
std::string shown(std::string_view name);

// "(1, 2, 3)"
std::string shown(const Shape &shape);

}  // namespace mobilenet
