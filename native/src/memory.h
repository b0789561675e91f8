// Aligned memory that frees itself.
#pragma once

#include <cstdlib>
#include <cstring>
#include <new>
#include <utility>
#include <vector>

#ifdef __linux__
#include <sys/mman.h>
#endif

namespace mobilenet {

constexpr size_t ALIGNMENT = 64;  // bytes: a cache line, and the widest vector
constexpr size_t LARGE_PAGE = size_t(2) << 20;

inline size_t aligned(size_t bytes) { return (bytes + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT; }

// Zeroed bytes; throws std::bad_alloc. From half a large page on they are asked for in large pages: a network whose
// weights fill thousands of small ones spends 1 to 3% of its time on finding them.
class Bytes {
 public:
  Bytes() = default;
  explicit Bytes(size_t size) : size_(size), alignment_(2 * size < LARGE_PAGE ? ALIGNMENT : LARGE_PAGE) {
    const size_t whole = ((size ? size : 1) + alignment_ - 1) / alignment_ * alignment_;
    data_ = static_cast<char *>(::operator new(whole, std::align_val_t(alignment_)));
#ifdef MADV_HUGEPAGE
    if (alignment_ == LARGE_PAGE) madvise(data_, whole, MADV_HUGEPAGE);  // refused, it makes no difference
#endif
    std::memset(data_, 0, aligned(size ? size : 1));
  }
  Bytes(Bytes &&other) noexcept { *this = std::move(other); }
  Bytes &operator=(Bytes &&other) noexcept {
    std::swap(data_, other.data_);
    std::swap(size_, other.size_);
    std::swap(alignment_, other.alignment_);
    return *this;
  }
  Bytes(const Bytes &) = delete;
  Bytes &operator=(const Bytes &) = delete;
  ~Bytes() {
    if (data_) ::operator delete(data_, std::align_val_t(alignment_));
  }
  char *data() const { return data_; }
  size_t size() const { return size_; }
  template <class T>
  T *as() const {
    return reinterpret_cast<T *>(data_);
  }

 private:
  char *data_ = nullptr;
  size_t size_ = 0, alignment_ = ALIGNMENT;
};

// Many pieces of memory side by side, freed together.
class Store {
 public:
  // `expected`: about how many bytes there will be in all.
  explicit Store(size_t expected) : piece_(2 * expected < LARGE_PAGE ? LARGE_PAGE / 32 : LARGE_PAGE) {}
  // Zeroed, aligned; throws std::bad_alloc.
  char *take(size_t size) {
    size = aligned(size);
    if (pieces_.empty() || used_ + size > pieces_.back().size()) {
      pieces_.emplace_back((size + piece_ - 1) / piece_ * piece_);
      used_ = 0;
    }
    used_ += size;
    return pieces_.back().data() + used_ - size;
  }

 private:
  size_t piece_, used_ = 0;
  std::vector<Bytes> pieces_;
};

}  // namespace mobilenet
