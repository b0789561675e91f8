// A model ready to run: the checked graph, its plans by resolution, packed weights, threads.
#pragma once

#include <memory>
#include <string>

#include "file.h"

namespace mobilenet {

struct Options {
  bool bf16 = false;    // float layers in bfloat16
  int threads = 1;
  std::string isa;      // empty: the best of this processor; "generic": every node by generic.h
  bool borrow = false;  // the bytes of the model live as long as the engine: they are not copied
  Limits limits;
};

class Engine {
 public:
  // Throws Failure or std::bad_alloc. `bytes` need not live on, unless they are borrowed.
  Engine(const uint8_t *bytes, size_t size, const Options &options);
  ~Engine();

  // The graph for pictures of height x width (0, 0: its own size); throws Failure. Safe from any thread, as are
  // all of these.
  std::shared_ptr<const Graph> graph(int64_t height, int64_t width);

  // inputs[i], outputs[i]: batch x shape elements, row-major.
  void run(int64_t height, int64_t width, int64_t batch, const void *const *inputs, void *const *outputs);

  std::string plan_json(int64_t height, int64_t width);

  // The plan with "ms" in every step: the shortest of `rounds` runs on zeros, on one thread.
  std::string profile_json(int64_t height, int64_t width, int rounds);

 private:
  struct State;
  std::unique_ptr<State> state_;
};

// The instruction sets that this build has and this processor can run, best first, separated by commas.
const char *isas();

// Operations (2 for a multiply-accumulate) a second of one processor, as a matrix kernel reaches them on data in
// its first cache. isa: "" or a name; element: 0 fp32, 1 bf16, 2 int8. Throws Failure.
double peak_operations(const char *isa, int element);

}  // namespace mobilenet
