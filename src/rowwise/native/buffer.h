// A piece of memory of floats, on a cache line's boundary.
#pragma once

#include <cstdlib>
#include <cstring>
#include <memory>
#include <new>

#include "simd.h"

namespace rowwise {

// Owns its memory; whole cache lines.
class Buffer {
 public:
  Buffer() = default;
  // `count` zeros.
  explicit Buffer(std::size_t count) : Buffer(uninitialised(count)) { zero(); }
  // `count` floats with whatever was there: for what is written before it is read.
  static Buffer uninitialised(std::size_t count) {
    Buffer buffer;
    const std::size_t bytes = (count * sizeof(float) + LINE - 1) / LINE * LINE;
    if (bytes == 0) return buffer;
    buffer.data_.reset(static_cast<float *>(std::aligned_alloc(LINE, bytes)));
    if (!buffer.data_) throw std::bad_alloc();
    buffer.size_ = count;
    return buffer;
  }

  float *data() const { return data_.get(); }
  // The same memory, for what has another type and is never read as floats.
  template <class T>
  T *as() const { return reinterpret_cast<T *>(data_.get()); }
  std::size_t size() const { return size_; }
  // With what fills up the last line.
  void zero() { if (size_) std::memset(data_.get(), 0, (size_ * sizeof(float) + LINE - 1) / LINE * LINE); }

 private:
  struct Free {
    void operator()(float *memory) const { std::free(memory); }
  };
  std::unique_ptr<float[], Free> data_;
  std::size_t size_ = 0;
};

}  // namespace rowwise
