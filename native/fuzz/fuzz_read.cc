// Any bytes through the reader alone, which is faster than the whole engine: read, fold, resize.
#include <cstdlib>

#include "file.h"
#include "mobilenet.h"

using namespace mobilenet;

extern "C" int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  try {
    Graph graph = read_model(data, size, {uint64_t(1) << 24, uint64_t(1) << 24});
    std::vector<std::vector<float>> owned;
    fold(graph, owned);
    for (const int64_t side : {1, 7, 96}) {
      Graph other = graph;
      try {
        resize_graph(other, side, side + 1);
      } catch (const Failure &failure) {
        if (failure.code != MOBILENET_BAD_ARGUMENT || failure.text.empty()) std::abort();
      }
    }
  } catch (const Failure &failure) {
    const bool expected = failure.code == MOBILENET_BAD_FILE || failure.code == MOBILENET_NO_MEMORY;
    if (!expected || failure.text.empty()) std::abort();
  }
  return 0;
}
