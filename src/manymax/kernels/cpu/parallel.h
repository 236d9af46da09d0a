// Threads, from the OpenMP runtime that torch has loaded: one thread pool in the process, sized by the caller
// (torch.get_num_threads()). It is called by the names that GCC's runtime has and LLVM's has too; with pragmas Clang would
// call LLVM's own, which torch's wheels do not bring. Nothing is linked: the names are found at load.
#pragma once

#include <cstdint>

extern "C" {
void GOMP_parallel(void (*body)(void*), void* data, unsigned threads, unsigned flags);
void GOMP_barrier();
int omp_get_thread_num();
int omp_get_num_threads();
}

namespace manymax::MANYMAX_ISA {

struct Team {
  int rank;
  int size;

  // The part of [0, count) that is this thread's, in units of `unit`.
  void share(int64_t count, int64_t unit, int64_t& first, int64_t& last) const {
    const int64_t units = (count + unit - 1) / unit;
    const int64_t each = units / size, more = units % size;
    const int64_t begin = rank * each + (rank < more ? rank : more);
    first = begin * unit;
    last = (begin + each + (rank < more ? 1 : 0)) * unit;
    if (first > count) first = count;
    if (last > count) last = count;
  }

  void barrier() const {
    if (size > 1) GOMP_barrier();
  }
};

template <class Body>
static void run_in_team(void* body) {
  (*static_cast<const Body*>(body))(Team{omp_get_thread_num(), omp_get_num_threads()});
}

// Run body(team) on `threads` threads; one thread does not enter the runtime at all, which saves about a microsecond.
template <class Body>
static inline void parallel(int threads, const Body& body) {
  if (threads > 1) return GOMP_parallel(run_in_team<Body>, const_cast<Body*>(&body), static_cast<unsigned>(threads), 0);
  body(Team{0, 1});
}

// Threads worth waking for `work` entries: below 32k each, waking (5 us) costs more than the work.
static inline int threads_for(int64_t work, int threads) {
  const int64_t useful = work / 32768 + 1;
  return useful < threads ? static_cast<int>(useful) : threads;
}

// Hands out tasks 0, 1, ... to threads as they become free.
class Queue {
 public:
  bool next(int64_t count, int64_t& task) {
    task = __atomic_fetch_add(&next_, 1, __ATOMIC_RELAXED);
    return task < count;
  }

 private:
  int64_t next_ = 0;
};

}  // namespace manymax::MANYMAX_ISA
