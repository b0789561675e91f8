#include "threads.h"

#include <chrono>
#include <memory>
#include <new>
#include <system_error>
#include <thread>
#include <vector>

#if defined(__linux__)
#include <sched.h>
#endif
#if defined(_WIN32)
#include <process.h>
#define getpid _getpid
#else
#include <unistd.h>
#endif
#if defined(__x86_64__) || defined(__i386__)
#include <immintrin.h>
#endif

namespace mobilenet {

namespace {

using Clock = std::chrono::steady_clock;
constexpr auto SPIN = std::chrono::microseconds(4);    // alone on the processor
constexpr auto YIELD = std::chrono::microseconds(40);  // after that, letting others have it

void pause() {
#if defined(__x86_64__) || defined(__i386__)
  _mm_pause();
#elif defined(__aarch64__)
  asm volatile("yield");
#endif
}

// The processor that this thread is on; -1 where nobody says.
int this_processor() {
#if defined(__linux__)
  return sched_getcpu();
#else
  return -1;
#endif
}

// Moves this thread to another processor, and lets it be moved again.
void leave_processor(int processor) {
#if defined(__linux__)
  cpu_set_t allowed;
  if (sched_getaffinity(0, sizeof(allowed), &allowed) != 0 || CPU_COUNT(&allowed) < 2) return;
  cpu_set_t others = allowed;
  CPU_CLR(size_t(processor), &others);
  if (sched_setaffinity(0, sizeof(others), &others) == 0) sched_setaffinity(0, sizeof(allowed), &allowed);
#else
  (void)processor;
#endif
}

}  // namespace

int available_processors() {
#if defined(__linux__)
  cpu_set_t set;
  if (sched_getaffinity(0, sizeof(set), &set) == 0) return CPU_COUNT(&set) > 0 ? CPU_COUNT(&set) : 1;
#endif
  const int count = int(std::thread::hardware_concurrency());
  return count > 0 ? count : 1;
}

bool Gate::spin(uint32_t seen) const {
  const auto start = Clock::now();
  for (;;) {
    for (int i = 0; i < 8; ++i) {
      if (count() != seen) return true;
      pause();
    }
    const auto spent = Clock::now() - start;
    if (spent > YIELD) return false;
    if (spent > SPIN) std::this_thread::yield();
  }
}

// A sleeper announces itself before it looks at the count, and `advance` counts before it looks for sleepers: one
// of the two sees the other, because these four accesses are sequentially consistent.
void Gate::wait_beyond(uint32_t seen) {
  if (spin(seen)) return;
  std::unique_lock lock(mutex_);
  sleepers_.fetch_add(1);
  while (count_.load() == seen) changed_.wait(lock);
  sleepers_.fetch_sub(1);
}

void Gate::advance() {
  count_.fetch_add(1);
  if (sleepers_.load() == 0) return;
  { const std::lock_guard lock(mutex_); }  // a sleeper is then either waiting or has yet to look at the count
  changed_.notify_all();
}

void Barrier::wait() {
  const uint32_t phase = phase_.count();
  if (missing_.fetch_sub(1, std::memory_order_acq_rel) == 1) {
    missing_.store(size_, std::memory_order_relaxed);  // seen by whoever passes: they read the phase after it
    phase_.advance();
  } else {
    phase_.wait_beyond(phase);
  }
}

// The threads themselves. After a fork the child has none of them, and locks may be held by nobody: it leaves the
// parent's team alone and makes its own.
struct Pool::Team {
  explicit Team(int count) : size(count), barrier(count) {}

  ~Team() {
    job = nullptr;
    start.advance();
    for (std::thread &thread : threads) thread.join();
  }

  bool started() {
    if (!threads.empty()) return true;
    if (failed) return false;
    try {
      threads.reserve(size_t(size - 1));
      for (int index = 1; index < size; ++index) threads.emplace_back(&Team::work, this, index);
    } catch (const std::exception &) {  // no more threads to be had: the ones there are go again
      failed = true;
      job = nullptr;
      start.advance();
      for (std::thread &thread : threads) thread.join();
      threads.clear();
    }
    return !failed;
  }

  void work(int index) {
    for (uint32_t seen = 0;; ++seen) {
      start.wait_beyond(seen);
      if (!job) return;
      stand_apart();
      job(context, index, size);
      if (working.fetch_sub(1, std::memory_order_acq_rel) == 1) done.advance();
    }
  }

  // Two threads of a team may be woken on one processor. As they wait for each other they let each other have it,
  // never sleep, and so are not moved for many milliseconds.
  void stand_apart() {
    const int mine = this_processor();
    if (mine >= 0 && mine == callers_processor) leave_processor(mine);
  }

  void run(Job wanted, void *with) {
    job = wanted;
    context = with;
    callers_processor = this_processor();
    working.store(size - 1, std::memory_order_relaxed);
    const uint32_t seen = done.count();
    start.advance();
    job(context, 0, size);
    done.wait_beyond(seen);
  }

  const int size;
  const long process = long(getpid());
  std::atomic<bool> busy{false};
  bool failed = false;
  std::vector<std::thread> threads;
  Job job = nullptr;
  void *context = nullptr;
  int callers_processor = -1;
  std::atomic<int> working{0};
  Gate start, done;
  Barrier barrier;
};

Pool::Pool(int size) : size_(size < 1 ? 1 : size) {}

Pool::~Pool() {
  Team *team = team_.load();
  if (team && team->process == long(getpid())) delete team;  // else its threads are another process's
}

// This process's team; nullptr where there is no memory for one.
Pool::Team *Pool::team() {
  Team *team = team_.load(std::memory_order_acquire);
  if (team && team->process == long(getpid())) return team;
  auto fresh = std::unique_ptr<Team>(new (std::nothrow) Team(size_));
  if (!fresh) return nullptr;
  if (team_.compare_exchange_strong(team, fresh.get())) return fresh.release();
  return team;
}

void Pool::run(Job job, void *context) {
  Team *team = size_ > 1 ? this->team() : nullptr;
  if (!team || team->busy.exchange(true, std::memory_order_acquire)) return job(context, 0, 1);
  if (team->started()) {
    team->run(job, context);
  } else {
    job(context, 0, 1);
  }
  team->busy.store(false, std::memory_order_release);
}

Barrier &Pool::barrier() { return team_.load(std::memory_order_acquire)->barrier; }

}  // namespace mobilenet
