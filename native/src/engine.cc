#include "engine.h"

#include <chrono>
#include <functional>
#include <map>
#include <mutex>

#include "../include/mobilenet.h"
#include "plan.h"
#include "poison.h"

namespace mobilenet {

namespace {

constexpr size_t MAX_PLANS = 8;  // sizes of pictures that are kept ready

// A plan and the memory of the runs that use it at the moment.
struct Ready {
  std::unique_ptr<Plan> plan;
  std::vector<Bytes> idle;  // arenas with scratch memory behind
  size_t run_bytes() const { return plan->arena_bytes + plan->scratch_bytes * size_t(plan->threads); }
};

struct Job {
  const Plan *plan;
  const void *const *inputs;
  void *const *outputs;
  char *memory;
  Pool *pool;
};

void run_steps(void *context, int index, int count) {
  const Job &run = *static_cast<const Job *>(context);
  const Plan &plan = *run.plan;
  const Frame frame{&plan.buffers, run.memory, run.inputs, run.outputs,
                    run.memory + plan.arena_bytes + plan.scratch_bytes * size_t(index), index, count,
                    count > 1 ? &run.pool->barrier() : nullptr};
  const Poison poison(plan, frame);
  for (const auto &step : plan.steps) {
    poison.before(*step);
    step->run(frame);
    frame.wait();
  }
}

const Kernels *kernels_for(const Options &options) {
  if (options.isa == "generic") return nullptr;
  const Kernels *kernels = find_kernels(options.isa.c_str());
  if (!kernels && !options.isa.empty())
    fail(MOBILENET_BAD_ARGUMENT, "this processor cannot run the instruction set '%s'; it has %s",
         options.isa.c_str(), isas());
  if (options.bf16 && !(kernels && kernels->has[int(Element::bf16)]))
    fail(MOBILENET_UNSUPPORTED, "bf16 needs the instruction set avx512bf16; this run has %s",
         kernels ? kernels->name : "generic");
  return kernels;
}

}  // namespace

struct Engine::State {
  Bytes file;
  Graph graph;  // folded, at its own size
  std::vector<std::vector<float>> owned;
  Options options;
  PlanOptions plan_options;
  Pool pool;
  std::mutex mutex;
  std::map<std::pair<int64_t, int64_t>, std::shared_ptr<Ready>> plans;

  explicit State(const Options &o) : options(o), pool(o.threads) {}

  // Copies the file, which the caller may free, and points the weights into the copy.
  void keep_weights(const uint8_t *bytes, size_t size) {
    file = Bytes(size);
    std::memcpy(file.data(), bytes, size);
    for (Node &node : graph.nodes)
      for (auto &[name, tensor] : node.parameters) {
        const uint8_t *data = static_cast<const uint8_t *>(tensor.data);
        if (!std::less<>()(data, bytes) && std::less<>()(data, bytes + size))
          tensor.data = file.data() + (data - bytes);
      }
  }

  Graph sized(std::pair<int64_t, int64_t> size) const {
    Graph result = graph;
    if (size == own_size()) return result;
    resize_graph(result, size.first, size.second);
    check_limits(result, options.limits);
    return result;
  }

  std::pair<int64_t, int64_t> own_size() const {
    const Shape &shape = graph.inputs[0].type.shape;
    return shape.size() == 3 ? std::pair{shape[0], shape[1]} : std::pair{int64_t(0), int64_t(0)};
  }

  std::shared_ptr<Ready> ready(int64_t height, int64_t width) {
    const std::lock_guard lock(mutex);
    auto size = height == 0 && width == 0 ? own_size() : std::pair{height, width};
    if (const auto found = plans.find(size); found != plans.end()) return found->second;
    auto made = std::make_shared<Ready>();
    made->plan = make_plan(sized(size), plan_options);
    if (plans.size() >= MAX_PLANS) plans.erase(plans.begin());
    return plans[size] = made;
  }

  Bytes take(Ready &ready) {
    {
      const std::lock_guard lock(mutex);
      if (!ready.idle.empty()) {
        Bytes memory = std::move(ready.idle.back());
        ready.idle.pop_back();
        return memory;
      }
    }
    return Bytes(ready.run_bytes());
  }

  void give(Ready &ready, Bytes memory) {
    const std::lock_guard lock(mutex);
    ready.idle.push_back(std::move(memory));
  }
};

Engine::Engine(const uint8_t *bytes, size_t size, const Options &options)
    : state_(std::make_unique<State>(options)) {
  State &s = *state_;
  s.plan_options = {kernels_for(options), options.bf16, options.threads, options.limits.memory};
  s.graph = read_model(bytes, size, options.limits);
  if (!options.borrow) s.keep_weights(bytes, size);
  fold(s.graph, s.owned);
  s.ready(0, 0);
}

Engine::~Engine() = default;

std::shared_ptr<const Graph> Engine::graph(int64_t height, int64_t width) {
  const std::shared_ptr<Ready> ready = state_->ready(height, width);
  return {ready, &ready->plan->graph};
}

void Engine::run(int64_t height, int64_t width, int64_t batch, const void *const *inputs, void *const *outputs) {
  State &s = *state_;
  const std::shared_ptr<Ready> ready = s.ready(height, width);
  const Plan &plan = *ready->plan;
  std::vector<const void *> in(plan.graph.inputs.size());
  std::vector<void *> out(plan.graph.outputs.size());
  Bytes memory = s.take(*ready);
  for (int64_t i = 0; i < batch; i++) {
    for (size_t k = 0; k < in.size(); k++) {
      const TensorType &type = plan.graph.inputs[k].type;
      in[k] = static_cast<const char *>(inputs[k]) + size_t(i * elements(type.shape)) * size_of(type.dtype);
    }
    for (size_t k = 0; k < out.size(); k++) {
      const TensorType &type = plan.graph.type(plan.graph.outputs[k].value);
      out[k] = static_cast<char *>(outputs[k]) + size_t(i * elements(type.shape)) * size_of(type.dtype);
    }
    Job run{&plan, in.data(), out.data(), memory.data(), &s.pool};
    if (s.options.threads > 1)
      s.pool.run(run_steps, &run);
    else
      run_steps(&run, 0, 1);
  }
  s.give(*ready, std::move(memory));
}

std::string Engine::plan_json(int64_t height, int64_t width) {
  State &s = *state_;
  return plan_text(*s.ready(height, width)->plan, s.plan_options);
}

std::string Engine::profile_json(int64_t height, int64_t width, int rounds) {
  using Clock = std::chrono::steady_clock;
  State &s = *state_;
  const auto size = height == 0 && width == 0 ? s.own_size() : std::pair{height, width};
  PlanOptions single = s.plan_options;
  single.threads = 1;
  const std::unique_ptr<Plan> plan = make_plan(s.sized(size), single);
  std::vector<Bytes> memory;
  std::vector<const void *> in;
  std::vector<void *> out;
  for (const Named &input : plan->graph.inputs) {
    memory.emplace_back(size_t(elements(input.type.shape)) * size_of(input.type.dtype));
    in.push_back(memory.back().data());
  }
  for (const Named &output : plan->graph.outputs) {
    const TensorType &type = plan->graph.type(output.value);
    memory.emplace_back(size_t(elements(type.shape)) * size_of(type.dtype));
    out.push_back(memory.back().data());
  }
  const Bytes arena(plan->arena_bytes + plan->scratch_bytes);
  const Frame frame{&plan->buffers, arena.data(), in.data(), out.data(), arena.data() + plan->arena_bytes, 0, 1,
                    nullptr};
  for (int round = 0; round < rounds; round++)
    for (const auto &step : plan->steps) {
      const auto start = Clock::now();
      step->run(frame);
      const double ms = std::chrono::duration<double, std::milli>(Clock::now() - start).count();
      if (round == 0 || ms < step->best_ms) step->best_ms = ms;
    }
  return plan_text(*plan, single);
}

}  // namespace mobilenet
