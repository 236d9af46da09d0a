// Threads. The code is compiled with -fopenmp and linked without it, so that GOMP_* come from the runtime that torch has
// loaded: one thread pool in the process, sized by the caller (torch.get_num_threads()).
#pragma once

#include <cstdint>

#ifdef _OPENMP
#include <omp.h>
#endif

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
#ifdef _OPENMP
    if (size > 1) {
#pragma omp barrier
    }
#endif
  }
};

// Run body(team) on `threads` threads; one thread does not enter the runtime at all, which saves about a microsecond.
template <class Body>
static inline void parallel(int threads, const Body& body) {
#ifdef _OPENMP
  if (threads > 1) {
#pragma omp parallel num_threads(threads)
    body(Team{omp_get_thread_num(), omp_get_num_threads()});
    return;
  }
#endif
  body(Team{0, 1});
}

// Threads worth waking for `work` entries: below 32k each, waking (5 us) costs more than the work.
static inline int threads_for(int64_t work, int threads) {
  const int64_t useful = work / 32768 + 1;
  return useful < threads ? static_cast<int>(useful) : threads;
}

}  // namespace manymax::MANYMAX_ISA
