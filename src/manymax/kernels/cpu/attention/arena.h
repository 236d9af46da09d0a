// Working memory of one call: one allocation, parts aligned to cache lines and not cleared.
#pragma once

#include <new>

#include "../large_pages.h"
#include "products.h"

namespace manymax::MANYMAX_ISA {

class Arena {
 public:
  // Reserve room for `count` T, `copies` times; `at` tells where after `allocate`.
  template <class T>
  int64_t reserve(int64_t count, int64_t copies = 1) {
    const int64_t offset = size_;
    size_ += spacing<T>(count) * copies;
    return offset;
  }
  void allocate() {
    memory_ = static_cast<char*>(__builtin_malloc(static_cast<size_t>(size_) + 64));
    if (memory_ == nullptr) throw std::bad_alloc();
    ask_for_large_pages(memory_, size_);
    start_ = memory_ + (64 - reinterpret_cast<uintptr_t>(memory_) % 64) % 64;
  }
  template <class T>
  T* at(int64_t offset, int64_t count = 0, int64_t copy = 0) const {
    return reinterpret_cast<T*>(start_ + offset + spacing<T>(count) * copy);
  }
  Arena() = default;
  Arena(const Arena&) = delete;
  Arena& operator=(const Arena&) = delete;
  ~Arena() { __builtin_free(memory_); }

 private:
  template <class T>
  static int64_t spacing(int64_t count) {
    return (count * static_cast<int64_t>(sizeof(T)) + 63) / 64 * 64;
  }
  int64_t size_ = 0;
  char* memory_ = nullptr;
  char* start_ = nullptr;
};

}  // namespace manymax::MANYMAX_ISA
