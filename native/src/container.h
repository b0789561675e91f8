// The safetensors container: 8 bytes of header length, a JSON header, then the tensors' bytes.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "graph.h"

namespace mobilenet {

struct StoredTensor {
  std::string name;
  Tensor tensor;
  std::string_view dtype;  // as the container spells it: more than a graph knows ("F64")
  bool known = false;      // whether tensor.dtype stands for it
  uint64_t begin = 0, end = 0;  // where its bytes are, from the end of the header
};

struct Container {
  std::vector<StoredTensor> tensors;  // by name
  std::string description;            // __metadata__["mobilenet"]

  // nullptr if there is none of this name.
  const StoredTensor *find(std::string_view name) const;
};

// Throws Failure (MOBILENET_BAD_FILE). The tensors point into `bytes`, at any alignment.
Container read_container(const uint8_t *bytes, size_t size);

}  // namespace mobilenet
