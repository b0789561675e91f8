// Aligned memory that frees itself.
#pragma once

#include <cstdlib>
#include <cstring>
#include <new>
#include <utility>

namespace mobilenet {

constexpr size_t ALIGNMENT = 64;  // bytes: a cache line, and the widest vector

inline size_t aligned(size_t bytes) { return (bytes + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT; }

// Zeroed bytes; throws std::bad_alloc.
class Bytes {
 public:
  Bytes() = default;
  explicit Bytes(size_t size) : size_(size) {
    data_ = static_cast<char *>(::operator new(aligned(size ? size : 1), std::align_val_t(ALIGNMENT)));
    std::memset(data_, 0, aligned(size ? size : 1));
  }
  Bytes(Bytes &&other) noexcept
      : data_(std::exchange(other.data_, nullptr)), size_(std::exchange(other.size_, 0)) {}
  Bytes &operator=(Bytes &&other) noexcept {
    std::swap(data_, other.data_);
    std::swap(size_, other.size_);
    return *this;
  }
  Bytes(const Bytes &) = delete;
  Bytes &operator=(const Bytes &) = delete;
  ~Bytes() {
    if (data_) ::operator delete(data_, std::align_val_t(ALIGNMENT));
  }
  char *data() const { return data_; }
  size_t size() const { return size_; }
  template <class T>
  T *as() const {
    return reinterpret_cast<T *>(data_);
  }

 private:
  char *data_ = nullptr;
  size_t size_ = 0;
};

}  // namespace mobilenet
