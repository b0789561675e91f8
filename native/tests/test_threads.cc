// test_threads [MODEL...]: the pool and its barrier: everybody passes together, callers do not get into each
// other's way, forks go on. Then the models (or a small one of its own): callers of any number get the answer of
// one.
#include <atomic>
#include <thread>
#include <vector>

#if !defined(_WIN32)
#include <sys/wait.h>
#include <unistd.h>
#endif

#include "check.h"
#include "engine_model.h"
#include "model_bytes.h"
#include "threads.h"

// ThreadSanitizer cannot start threads after a fork.
#if defined(__SANITIZE_THREAD__)
#define WITH_FORKS 0
#elif defined(__has_feature)
#if __has_feature(thread_sanitizer)
#define WITH_FORKS 0
#endif
#endif
#if !defined(WITH_FORKS) && !defined(_WIN32) && !defined(__EMSCRIPTEN__)
#define WITH_FORKS 1
#endif

using mobilenet::Barrier;
using mobilenet::Pool;
using namespace mobilenet::test;

namespace {

struct Phases {
  Pool *pool;
  int phases;
  std::atomic<int> late{0};
  int done[64] = {};
  int count = 0;
};

// Each thread counts its phases; after the first barrier of a phase everybody must have counted.
void count_phases(void *context, int index, int count) {
  Phases &phases = *static_cast<Phases *>(context);
  if (index == 0) phases.count = count;
  for (int phase = 1; phase <= phases.phases; ++phase) {
    phases.done[index] = phase;
    if (count == 1) continue;
    phases.pool->barrier().wait();
    for (int other = 0; other < count; ++other)
      if (phases.done[other] != phase) ++phases.late;
    phases.pool->barrier().wait();
  }
}

void threads_meet_at_barriers(int size) {
  Pool pool(size);
  for (int run = 0; run < 20; ++run) {
    Phases phases{&pool, 50};
    pool.run(count_phases, &phases);
    CHECK(phases.count == pool.size());
    CHECK(phases.late == 0);
    for (int i = 0; i < pool.size(); ++i) CHECK(phases.done[i] == 50);
  }
}

// Whoever finds the threads at work does the job alone: all of it is done either way.
void many_callers(int callers) {
  Pool pool(3);
  std::atomic<int> wrong{0};
  std::vector<std::thread> threads;
  for (int caller = 0; caller < callers; ++caller)
    threads.emplace_back([&] {
      for (int run = 0; run < 100; ++run) {
        Phases phases{&pool, 2};
        pool.run(count_phases, &phases);
        wrong += phases.late + (phases.count != 1 && phases.count != 3);
        for (int i = 0; i < phases.count; ++i) wrong += phases.done[i] != 2;
      }
    });
  for (std::thread &thread : threads) thread.join();
  CHECK(wrong == 0);
}

#if WITH_FORKS
void forked_child_has_threads_of_its_own() {
  Pool pool(2);
  Phases before{&pool, 3};
  pool.run(count_phases, &before);
  const pid_t child = fork();
  if (child == 0) {
    alarm(20);
    Phases phases{&pool, 3};
    pool.run(count_phases, &phases);
    _exit(phases.count == 2 && phases.late == 0 ? 0 : 1);
  }
  int status = -1;
  CHECK(waitpid(child, &status, 0) == child && status == 0);
  Phases after{&pool, 3};
  pool.run(count_phases, &after);
  CHECK(after.count == 2 && after.late == 0);
}
#endif

// An inverted residual with a gate, a head and a classifier, of pictures of 24 x 20.
Bytes small_model() {
  const std::string conv = R"("kind":"conv","activation":"relu6","out_channels":)";
  const std::string nodes =
      node("stem", conv + R"(12,"kernel":[3,3],"stride":[2,2],"padding":[1,1,1,1])", R"("image")") + "," +
      node("expand", conv + "40", R"("stem")") + "," +
      node("deep", R"("kind":"depthwise_conv","kernel":[3,3],"padding":[1,1,1,1])", R"("expand")") + "," +
      node("squeeze", R"("kind":"mean","keep_axes":true)", R"("deep")") + "," +
      node("excite", R"("kind":"conv","activation":"hard_sigmoid","out_channels":40)", R"("squeeze")") + "," +
      node("gated", R"("kind":"mul")", R"("deep","excite")") + "," +
      node("project", R"("kind":"conv","out_channels":12)", R"("gated")") + "," +
      node("sum", R"("kind":"add")", R"("project","stem")") + "," +
      node("mean", R"("kind":"mean")", R"("sum")") + "," +
      node("logits", R"("kind":"dense","out_features":19,"bias":false)", R"("mean")");
  unsigned state = 1;
  const auto random = [&](const char *name, const char *shape, size_t count) {
    std::vector<float> values(count);
    for (float &value : values) value = float(int((state = state * 1664525u + 1013904223u) >> 20) - 2048) / 8192;
    return floats(name, shape, values);
  };
  return model(graph_of("[24,20,3]", nodes, "logits"),
               {random("stem.weight", "[12,3,3,3]", 324), random("expand.weight", "[40,1,1,12]", 480),
                random("deep.weight", "[3,3,40]", 360), random("excite.weight", "[40,1,1,40]", 1600),
                random("project.weight", "[12,1,1,40]", 480), random("logits.weight", "[19,12]", 228)});
}

// More sizes than a model keeps plans for.
std::vector<Size> sizes_of(const EngineModel &model) {
  std::vector<Size> sizes;
  const Size own = model.own_size();
  for (int64_t i = 0; i < 10; ++i)
    sizes.push_back(i == 0 || own.height == 0 ? Size{0, 0} : Size{own.height / 2 + 3 * i, own.width + 5 - 2 * i});
  return sizes;
}

// `callers` threads ask one model at once, each for all sizes in an order of its own, and so plans come and go.
void callers_get_the_same(const Bytes &bytes, int callers, int pool, const std::vector<Size> &sizes,
                          const std::vector<std::vector<Output>> &wanted) {
  EngineModel shared(bytes, nullptr, pool);
  CHECK(shared.code == MOBILENET_OK);
  if (shared.code != MOBILENET_OK) return;
  std::atomic<int> wrong{0};
  std::vector<std::thread> threads;
  for (int caller = 0; caller < callers; ++caller)
    threads.emplace_back([&, caller] {
      for (size_t turn = 0; turn < sizes.size(); ++turn) {
        const size_t s = (turn * (caller % 2 ? 3 : 7) + size_t(caller)) % sizes.size();
        int code = 0;
        wrong += shared.run(sizes[s], 2, 5, &code) != wanted[s] || (code != MOBILENET_OK && !wanted[s].empty());
      }
    });
  for (std::thread &thread : threads) thread.join();
  CHECK(wrong == 0);
}

void model_is_shared(const Bytes &bytes) {
  EngineModel alone(bytes, nullptr, 1);
  CHECK(alone.code == MOBILENET_OK);
  if (alone.code != MOBILENET_OK) return;
  const std::vector<Size> sizes = sizes_of(alone);
  std::vector<std::vector<Output>> wanted;
  for (const Size &size : sizes) wanted.push_back(alone.run(size, 2, 5));
  CHECK(!wanted[0].empty());
  for (int pool : {1, 2, 3})
    for (int callers : {1, 2, 5, 8}) callers_get_the_same(bytes, callers, pool, sizes, wanted);
}

}  // namespace

int main(int count, char **paths) {
  CHECK(mobilenet::available_processors() >= 1);
  CHECK(Pool(0).size() == 1);
  for (int size : {1, 2, 3, 8}) threads_meet_at_barriers(size);
  for (int callers : {1, 2, 8}) many_callers(callers);
  { Pool never_used(4); }
#if WITH_FORKS
  forked_child_has_threads_of_its_own();
#endif
  model_is_shared(small_model());
  for (int i = 1; i < count; ++i) model_is_shared(read_file(paths[i]));
  return failures();
}
