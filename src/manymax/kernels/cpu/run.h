// Entry of every row kernel: chooses threads, room and the way to walk, then runs the kernel for the storage type.
#pragma once

#include "columns.h"

namespace manymax::MANYMAX_ISA {

template <template <class> class Kernel, class S>
static void run_as(const RowsCall& call) {
  using C = Compute<S>;
  const Kernel<C> kernel(call);
  int threads = threads_for(call.rows * call.n, call.threads);
  if (threads > kMaxThreads) threads = kMaxThreads;
  // Lazily backed by memory: a kernel that keeps few candidates of a long row touches few pages.
  C* scratch = nullptr;
  if constexpr (Kernel<C>::kScratch) {
    scratch = static_cast<C*>(__builtin_malloc(static_cast<size_t>(threads) * scratch_of(call.n) * sizeof(C)));
    if (scratch == nullptr) throw std::bad_alloc();
  }
  S* blocks = nullptr;
  if (has_columns(call)) {
    blocks = static_cast<S*>(__builtin_malloc(static_cast<size_t>(threads) * 3 * kColumns * pitch_of(call.n) * sizeof(S)));
    if (blocks == nullptr) throw std::bad_alloc();
  }
  const bool split = Kernel<C>::kSplits && call.n >= kSplitRow && call.rows < 8 * threads && threads > 1;
  typename Kernel<C>::Part parts[kMaxThreads];
  parallel(threads, [&](const Team& team) {
    alignas(64) C buffers[3 * kChunk];
    const Rows<S> rows{&call, buffers, scratch ? scratch + team.rank * scratch_of(call.n) : nullptr};
    if constexpr (Kernel<C>::kSplits) {
      if (split) return split_rows<Kernel, S>(call, team, kernel, rows, parts);
    }
    if (blocks) return column_rows(call, team, kernel, rows, blocks);
    int64_t first, last;
    team.share(call.rows, 1, first, last);
    for (int64_t r = first; r < last; ++r)
      kernel.row(rows.x(r, Kernel<C>::kReadsScores), rows.grad(r), rows.y(r), call.n);
  });
  __builtin_free(scratch);
  __builtin_free(blocks);
}

template <template <class> class Kernel>
static void run(const RowsCall& call) {
  switch (call.dtype) {
    case DType::f32: return run_as<Kernel, float>(call);
    case DType::f64: return run_as<Kernel, double>(call);
    case DType::bf16: return run_as<Kernel, BF16>(call);
    case DType::f16: return run_as<Kernel, F16>(call);
  }
}

}  // namespace manymax::MANYMAX_ISA
