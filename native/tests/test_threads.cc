// The pool and its barrier: everybody passes together, callers do not get into each other's way, forks go on.
#include <atomic>
#include <thread>
#include <vector>

#if !defined(_WIN32)
#include <sys/wait.h>
#include <unistd.h>
#endif

#include "check.h"
#include "threads.h"

using mobilenet::Barrier;
using mobilenet::Pool;

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

#if !defined(_WIN32) && !defined(__EMSCRIPTEN__) && !defined(__SANITIZE_THREAD__)
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

}  // namespace

int main() {
  CHECK(mobilenet::available_processors() >= 1);
  CHECK(Pool(0).size() == 1);
  for (int size : {1, 2, 3, 8}) threads_meet_at_barriers(size);
  for (int callers : {1, 2, 8}) many_callers(callers);
  { Pool never_used(4); }
#if !defined(_WIN32) && !defined(__EMSCRIPTEN__) && !defined(__SANITIZE_THREAD__)
  forked_child_has_threads_of_its_own();
#endif
  return mobilenet::test::failures();
}
