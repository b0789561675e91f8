// A plan: the steps that answer one graph at one resolution, and where every value lies while they run.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "graph.h"
#include "kernels.h"
#include "memory.h"
#include "threads.h"

namespace mobilenet {

// One form of a value of the graph in memory: in blocks of 16 channels, for kernels, or flat (row-major, in the
// graph's own dtype), for the caller and for generic operators. Integers in blocks are uint8: int8 plus 128.
struct Buffer {
  int value = 0;
  bool blocked = false;
  Element element = Element::f32;  // in blocks
  int64_t height = 1, width = 1, channels = 1;
  size_t bytes = 0;
  size_t offset = 0;             // in the arena
  int input = -1, output = -1;   // the caller's memory instead
  int first = -1, last = -1;     // the steps that write it first and read it last
  int64_t pixels() const { return height * width; }
  int blocks() const { return int((channels + BLOCK - 1) / BLOCK); }
  int64_t pixel_bytes() const { return int64_t(BLOCK * size_of(element)); }
  int64_t block_bytes() const { return pixels() * pixel_bytes(); }
};

// What a step sees while it runs.
struct Frame {
  const std::vector<Buffer> *buffers;
  char *arena;
  const void *const *inputs;
  void *const *outputs;
  char *scratch;  // of this thread
  int index, count;  // of this thread
  Barrier *barrier;
  char *at(int buffer) const {
    const Buffer &b = (*buffers)[size_t(buffer)];
    if (b.input >= 0) return static_cast<char *>(const_cast<void *>(inputs[b.input]));
    if (b.output >= 0) return static_cast<char *>(outputs[b.output]);
    return arena + b.offset;
  }
  void wait() const {
    if (count > 1) barrier->wait();
  }
};

// The share of `total` things, in pieces of `grain`, that thread `index` of `count` does.
struct Share {
  int64_t first, last;
};
inline Share share(int64_t total, int64_t grain, int index, int count) {
  const int64_t pieces = (total + grain - 1) / grain;
  const int64_t first = pieces * index / count * grain, last = pieces * (index + 1) / count * grain;
  return {first < total ? first : total, last < total ? last : total};
}

class Step {
 public:
  virtual ~Step() = default;
  // Runs a thread's share. All threads call it; a barrier follows.
  virtual void run(const Frame &frame) const = 0;
  std::string kernel, tile;    // for people
  std::vector<int> nodes;      // of the graph
  std::vector<int> reads;      // buffers
  int write = -1;              // buffer
  size_t scratch = 0;          // bytes for each thread
  int64_t macs = 0;
  double best_ms = 0;          // of a profile
};

struct Plan {
  Graph graph;
  std::vector<std::vector<float>> owned;  // folded weights, while planning
  std::unique_ptr<Store> weights;         // packed, of all steps
  std::vector<Buffer> buffers;
  std::vector<std::unique_ptr<Step>> steps;
  size_t arena_bytes = 0, scratch_bytes = 0, weight_bytes = 0;
  size_t peak_bytes = 0;  // of activations alive at once on one thread, the caller's pictures and scratch included
  int threads = 1;
};

struct PlanOptions {
  const Kernels *kernels;  // nullptr: every node by generic.h
  bool bf16;
  int threads;
  uint64_t memory_limit;
};

// Plans a folded graph. Throws Failure or std::bad_alloc.
std::unique_ptr<Plan> make_plan(Graph graph, const PlanOptions &options);

// Places the buffers that are alive at the same time beside each other (arena.cc).
void place_buffers(Plan &plan);

std::string plan_text(const Plan &plan, const PlanOptions &options);

}  // namespace mobilenet
