// Any bytes through the whole interface: load, plan, and one run where the graph is small. By hand:
//   python native/fuzz/write_seeds.py build/seeds
//   cmake -S . -B build/fuzz -DCMAKE_CXX_COMPILER=clang++ -DMOBILENET_FUZZ=ON \
//     -DMOBILENET_SANITIZE=address,undefined
//   cmake --build build/fuzz && build/fuzz/native/fuzz_load -dict=native/fuzz/model.dict build/seeds
// MOBILENET_ISA chooses the kernels: "generic", or one of mobilenet_isas().
#include <cstdlib>
#include <memory>
#include <vector>

#include "file.h"
#include "mobilenet.h"

namespace {

constexpr uint64_t MEMORY = 1 << 24;  // of weights and of any value: room enough for every seed
constexpr uint64_t MACS = 1'000'000;
constexpr int64_t SMALL = 1 << 16;  // elements, of all values that one run writes

void require(bool holds) {
  if (!holds) std::abort();
}

// What loading must say: a code of the interface, with a text.
bool accepted(int code, const char *error) {
  require(code >= MOBILENET_OK && code <= MOBILENET_NO_MEMORY && code != MOBILENET_BAD_ARGUMENT);
  require(code == MOBILENET_OK || error[0] != '\0');
  return code == MOBILENET_OK;
}

size_t bytes_of(const mobilenet_tensor &tensor) {
  static constexpr size_t sizes[] = {4, 1, 1, 8};
  size_t bytes = sizes[tensor.dtype];
  for (int32_t i = 0; i < tensor.rank; ++i) bytes *= size_t(tensor.shape[i]);
  return bytes;
}

using Describe = int (*)(mobilenet_model *, int, int64_t, int64_t, mobilenet_tensor *, char *, size_t);

std::vector<std::vector<char>> buffers(mobilenet_model *model, int count, Describe describe) {
  std::vector<std::vector<char>> all;
  for (int i = 0; i < count; ++i) {
    mobilenet_tensor tensor;
    require(describe(model, i, 0, 0, &tensor, nullptr, 0) == MOBILENET_OK);
    all.emplace_back(bytes_of(tensor));
  }
  return all;
}

void run(mobilenet_model *model) {
  auto inputs = buffers(model, mobilenet_input_count(model), mobilenet_input);
  auto outputs = buffers(model, mobilenet_output_count(model), mobilenet_output);
  std::vector<const void *> from;
  std::vector<void *> to;
  for (auto &buffer : inputs) from.push_back(buffer.data());
  for (auto &buffer : outputs) to.push_back(buffer.data());
  char error[256] = "";
  accepted(mobilenet_run(model, 0, 0, 1, from.data(), to.data(), error, sizeof error), error);
}

// Whether the reader accepts the bytes, and a run would be short.
bool is_small(const uint8_t *data, size_t size, bool &readable) {
  readable = false;
  try {
    mobilenet::Graph graph = mobilenet::read_model(data, size, {MEMORY, MACS});
    readable = true;
    std::vector<std::vector<float>> owned;
    mobilenet::fold(graph, owned);
    int64_t total = 0;
    for (const auto &node : graph.nodes) {
      total += mobilenet::elements(node.type.shape) * node.op.kernel[0] * node.op.kernel[1];
      if (total > SMALL) return false;
    }
    if (graph.inputs.size() == 1 && graph.inputs[0].type.shape.size() == 3) mobilenet::resize_graph(graph, 5, 7);
  } catch (const mobilenet::Failure &) {  // at this size
  }
  return readable;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  bool readable = false;
  const bool small = is_small(data, size, readable);
  mobilenet_options options{};
  options.size = sizeof options;
  options.threads = 1;
  options.isa = std::getenv("MOBILENET_ISA");
  options.memory_limit = MEMORY;
  options.mac_limit = MACS;
  mobilenet_model *model = nullptr;
  char error[256] = "";
  if (!accepted(mobilenet_load(data, size, &options, &model, error, sizeof error), error)) return 0;
  require(readable);
  char *json = nullptr;
  if (small && accepted(mobilenet_plan(model, 0, 0, &json, error, sizeof error), error)) mobilenet_release(json);
  if (small) run(model);
  mobilenet_free(model);
  return 0;
}
