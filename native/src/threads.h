// A few threads that share the work of one run, and the barrier between its phases.
#pragma once

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <mutex>

namespace mobilenet {

// How many processors this process may use: at least 1.
int available_processors();

// A count that threads wait on: they spin for a few microseconds, then give their processor to whoever wants it,
// then sleep, so that a busy neighbour costs a switch and not a time slice.
class Gate {
 public:
  uint32_t count() const { return count_.load(std::memory_order_acquire); }
  void advance();                   // adds 1 and wakes whoever waits
  void wait_beyond(uint32_t seen);  // returns once count() != seen

 private:
  bool spin(uint32_t seen) const;

  std::atomic<uint32_t> count_{0};
  std::atomic<int> sleepers_{0};
  std::mutex mutex_;
  std::condition_variable changed_;
};

// Lets `size` threads pass together, as often as they like.
class Barrier {
 public:
  explicit Barrier(int size) : size_(size), missing_(size) {}
  void wait();
  int size() const { return size_; }

 private:
  const int size_;
  alignas(64) std::atomic<int> missing_;
  alignas(64) Gate phase_;
};

// The threads of one model. The caller of `run` is thread 0; the others start at the first run that needs them and
// end in the destructor. One caller at a time has them: whoever comes meanwhile works alone.
class Pool {
 public:
  using Job = void (*)(void *context, int index, int count);

  explicit Pool(int size);
  ~Pool();
  Pool(const Pool &) = delete;
  Pool &operator=(const Pool &) = delete;

  int size() const { return size_; }

  // Calls job(context, index, count) for each index below count, at the same time, and returns when all are done.
  // count is size(), or 1 where the threads are at work for another caller or could not be started. The job must
  // not throw.
  void run(Job job, void *context);

  // For the threads of the job that is running, if its count is size().
  Barrier &barrier();

 private:
  struct Team;
  Team *team();

  const int size_;
  std::atomic<Team *> team_{nullptr};
};

}  // namespace mobilenet
