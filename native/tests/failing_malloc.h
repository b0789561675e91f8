// Replaces operator new, for a test program of one file: counts what is alive, and fails when it is told to.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdlib>
#include <new>

namespace mobilenet::test {

inline std::atomic<long> allocations_left{-1};  // that succeed; then they fail. -1: any number
inline std::atomic<bool> fails_once{false};     // after the one that fails, all succeed again
inline std::atomic<long> allocations_refused{0};
inline std::atomic<long> allocations_alive{0};

inline void *allocated(size_t size, size_t alignment) noexcept {
  long left = allocations_left.load();
  while (left > 0 && !allocations_left.compare_exchange_weak(left, left - 1)) {
  }
  if (left == 0) {
    if (fails_once) allocations_left = -1;
    ++allocations_refused;
    return nullptr;
  }
  const size_t rounded = (size + alignment - 1) / alignment * alignment;
  void *memory = alignment > alignof(std::max_align_t)
                     ? std::aligned_alloc(alignment, rounded ? rounded : alignment)
                     : std::malloc(size ? size : 1);
  if (memory) ++allocations_alive;
  return memory;
}

inline void *allocated_or_thrown(size_t size, size_t alignment) {
  if (void *memory = allocated(size, alignment)) return memory;
  throw std::bad_alloc();
}

inline void freed(void *memory) noexcept {
  if (memory) --allocations_alive;
  std::free(memory);
}

}  // namespace mobilenet::test

void *operator new(size_t size) { return mobilenet::test::allocated_or_thrown(size, 1); }
void *operator new(size_t size, std::align_val_t alignment) {
  return mobilenet::test::allocated_or_thrown(size, size_t(alignment));
}
void *operator new(size_t size, const std::nothrow_t &) noexcept { return mobilenet::test::allocated(size, 1); }
void *operator new(size_t size, std::align_val_t alignment, const std::nothrow_t &) noexcept {
  return mobilenet::test::allocated(size, size_t(alignment));
}
void operator delete(void *memory) noexcept { mobilenet::test::freed(memory); }
void operator delete(void *memory, size_t) noexcept { mobilenet::test::freed(memory); }
void operator delete(void *memory, std::align_val_t) noexcept { mobilenet::test::freed(memory); }
void operator delete(void *memory, size_t, std::align_val_t) noexcept { mobilenet::test::freed(memory); }
