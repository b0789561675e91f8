// In builds with AddressSanitizer a step may touch only the buffers that it names and its own scratch memory:
// the arena is one block, inside of which a read past a buffer's end would not be seen. What is not in use is
// filled with ones, which no float is, so that nothing counts on memory that a step has not written. Other
// builds do nothing.
#pragma once

#include "plan.h"

#if defined(__SANITIZE_ADDRESS__)
#define MOBILENET_POISON 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define MOBILENET_POISON 1
#endif
#endif

#if defined(MOBILENET_POISON)
#include <sanitizer/asan_interface.h>
#endif

namespace mobilenet {

// Of one run on one thread. With more threads the arena stays open: they pass from step to step together.
class Poison {
 public:
#if defined(MOBILENET_POISON)
  Poison(const Plan &plan, const Frame &frame) : plan_(plan), frame_(frame), bytes_(plan.arena_bytes) {
    if (frame.count > 1) return;
    std::memset(frame.arena, 0xff, bytes_);
    std::memset(frame.scratch, 0xff, plan.scratch_bytes);
  }
  ~Poison() {
    ASAN_UNPOISON_MEMORY_REGION(frame_.arena, bytes_);
    ASAN_UNPOISON_MEMORY_REGION(frame_.scratch, plan_.scratch_bytes);
  }
  void before(const Step &step) const {
    if (frame_.count > 1) return;
    ASAN_POISON_MEMORY_REGION(frame_.arena, bytes_);
    ASAN_POISON_MEMORY_REGION(frame_.scratch, plan_.scratch_bytes);
    for (int buffer : step.reads) open(buffer);
    open(step.write);
    ASAN_UNPOISON_MEMORY_REGION(frame_.scratch, step.scratch);
  }

 private:
  void open(int index) const {
    const Buffer &buffer = plan_.buffers[size_t(index)];
    if (buffer.input < 0 && buffer.output < 0) ASAN_UNPOISON_MEMORY_REGION(frame_.at(index), buffer.bytes);
  }
  const Plan &plan_;
  const Frame &frame_;
  const size_t bytes_;
#else
  Poison(const Plan &, const Frame &) {}
  void before(const Step &) const {}
#endif
};

}  // namespace mobilenet
