// What the C++ tests share. A check registers itself; main.cpp runs every check on every instruction set.
#pragma once

#include <sys/mman.h>
#include <unistd.h>

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>

#ifdef __SANITIZE_ADDRESS__
#include <sanitizer/asan_interface.h>
#endif

#include "dispatch.h"

struct Check {
  const char* name;
  const char* isa;  // null: any
  void (*run)(const manymax::Kernels&);
  Check* next;

  Check(const char* name, void (*run)(const manymax::Kernels&), const char* isa = nullptr)
      : name(name), isa(isa), run(run), next(first()) {
    first() = this;
  }
  static Check*& first();
};

// Counts and prints what does not hold.
__attribute__((format(printf, 2, 3))) void expect(bool holds, const char* format, ...);

// From one float32 to the next that elementary functions are tried at.
extern uint32_t math_step;

// A tensor that ends where its memory ends: one entry further, and the program stops, vector instructions included, which the
// address sanitizer does not see through. It starts wherever that leaves it, aligned to its entries alone.
template <class T>
class Guarded {
 public:
  explicit Guarded(size_t count, T fill = T{}) : count_(count) {
    const size_t page = static_cast<size_t>(sysconf(_SC_PAGESIZE));
    const size_t bytes = (count * sizeof(T) + page - 1) / page * page;
    length_ = bytes + page;
    void* memory = mmap(nullptr, length_, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED || mprotect(static_cast<char*>(memory) + bytes, page, PROT_NONE) != 0) std::abort();
    start_ = static_cast<char*>(memory);
    slack_ = bytes - count * sizeof(T);
    data_ = reinterpret_cast<T*>(start_ + slack_);
    for (size_t i = 0; i < count; ++i) data_[i] = fill;
#ifdef __SANITIZE_ADDRESS__
    ASAN_POISON_MEMORY_REGION(start_, slack_);
#endif
  }
  ~Guarded() {
#ifdef __SANITIZE_ADDRESS__
    ASAN_UNPOISON_MEMORY_REGION(start_, slack_);
#endif
    munmap(start_, length_);
  }
  Guarded(const Guarded&) = delete;
  Guarded& operator=(const Guarded&) = delete;

  T* data() { return data_; }
  const T* data() const { return data_; }
  size_t size() const { return count_; }
  T& operator[](size_t i) { return data_[i]; }
  const T& operator[](size_t i) const { return data_[i]; }
  T* begin() { return data_; }
  T* end() { return data_ + count_; }

 private:
  size_t count_, length_, slack_;
  char* start_;
  T* data_;
};
