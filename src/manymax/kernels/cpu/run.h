// Entry of every row kernel: chooses threads, room and the way to walk, then runs the kernel for the storage type.
#pragma once

#include <stdlib.h>

#include "chain.h"
#include "columns.h"
#include "stream.h"

namespace manymax::MANYMAX_ISA {

// Rows are split over threads from here on: two barriers cost 2 us, the row itself 50 us and more.
inline constexpr int64_t kSplitRow = 1 << 18;
inline constexpr int kMaxThreads = 256;

template <class Kernel, class S>
static void split_rows(const RowsCall& call, const Team& team, const Kernel& kernel, const Rows<S>& rows,
                       typename Kernel::Part* parts) {
  int64_t first, last;
  team.share(call.n, kChunk, first, last);
  for (int64_t r = 0; r < call.rows; ++r) {
    const auto x = rows.x(r, Kernel::kReadsScores);
    const auto grad = rows.grad(r);
    parts[team.rank] = kernel.partial(x, grad, first, last);
    team.barrier();
    auto whole = parts[0];
    for (int t = 1; t < team.size; ++t) whole = kernel.merge(whole, parts[t]);
    team.barrier();  // parts are free for the next row
    kernel.write(whole, x, grad, rows.y(r), first, last, call.n);
  }
}

template <class Kernel, class S>
static void some_rows(const RowsCall& call, const Kernel& kernel, const Rows<S>& rows, int64_t first, int64_t last) {
  if constexpr (Kernel::kChains) {
    const auto x = rows.x(first, Kernel::kReadsScores);
    const auto y = rows.y(first);
    if (last - first > 1 && call.dims == 1 && x.direct && y.direct && kernel.chains(call.n))
      return chain_rows(kernel, x.direct, call.x.strides[0], y, call.y.strides[0], last - first, call.n);
  }
  for (int64_t r = first; r < last; ++r)
    kernel.row(rows.x(r, Kernel::kReadsScores), rows.grad(r), rows.y(r), call.n);
}

// A reduction of scores that are used where they are needs no buffers: 16 rows of 256 still fit into the first-level cache.
// Many longer rows gain too: what is left to do at the end of each, one thing after the other, is done for a block at once.
template <class Kernel, class S>
static int64_t longest_in_block(const RowsCall& call) {
  using C = Compute<S>;
  const bool direct = Rows<S>::kSame && call.dims == 1 && call.x.step == 1 && !call.mask.data && call.temperature == 1;
  if (!Kernel::kReduces || !direct) return kLongestInBlock<C>;
  return call.rows >= 64 * kLanes<C> ? kChunk : 2 * kLongestInBlock<C>;
}

// `times` blocks, one behind the other. The calls' own cost was a third of the time of rows of 16.
template <class Kernel, class C>
MM_OUTLINE static void consecutive_blocks(const Kernel& kernel, Block<C> b, int64_t times) {
  for (; times > 0; --times) {
    kernel.block(b);
    b.x += kLanes<C> * b.x_pitch, b.grad += kLanes<C> * b.grad_pitch, b.y += kLanes<C> * b.y_pitch;
  }
}

template <class Kernel, class S>
static void block_rows(const RowsCall& call, const Team& team, const Kernel& kernel, const Rows<S>& rows) {
  constexpr int L = kLanes<Compute<S>>;
  const int64_t width = Kernel::kReduces ? 1 : call.n;
  int64_t first, last;
  team.share(call.rows, L, first, last);
  for (int64_t r = first; r < last; r += L) {
    const int count = last - r < L ? static_cast<int>(last - r) : L;
    if (count < L && call.n > kLongestInBlock<Compute<S>>) return some_rows(call, kernel, rows, r, last);
    const auto block = rows.block(r, count, Kernel::kReadsScores, width);
    // Finding out where a block lies takes longer than a block of rows of 16.
    const int64_t times = rows.steady(block) ? (last - r) / L : 1;
    consecutive_blocks(kernel, block, times);
    rows.finish(block, r, count, width);
    r += (times - 1) * L;
  }
}

// Memory for each thread, backed lazily: a kernel that keeps few candidates of a long row touches few pages. Two threads
// have no page in common: what one writes, the other's prefetchers would fetch back, and rows of 256 took twice as long.
template <class T>
struct PerThread {
  static constexpr int64_t kPage = 4096;
  T* data = nullptr;
  int64_t each;
  PerThread(int threads, int64_t entries) {
    constexpr int64_t kEntries = kPage / sizeof(T);
    each = (entries + kEntries - 1) / kEntries * kEntries;
    if (entries == 0) return;
    data = static_cast<T*>(aligned_alloc(kPage, static_cast<size_t>(threads * each) * sizeof(T)));
    if (data == nullptr) throw std::bad_alloc();
  }
  PerThread(const PerThread&) = delete;
  PerThread& operator=(const PerThread&) = delete;
  ~PerThread() { __builtin_free(data); }
  T* of(const Team& team) const { return data ? data + team.rank * each : nullptr; }
};

template <template <class> class KernelOf, class S>
static void run_as(const RowsCall& call) {
  using C = Compute<S>;
  using Kernel = KernelOf<C>;
  const Kernel kernel(call);
  int threads = threads_for(call.rows * call.n, call.threads);
  if (threads > kMaxThreads) threads = kMaxThreads;
  constexpr bool kBlocks = Kernel::kBlocks && sizeof(C) == 4;  // float64 is rare: not worth its share of the build
  const bool columns = has_columns(call), blocks = kBlocks && call.n <= longest_in_block<Kernel, S>(call);
  const PerThread<C> room(threads, blocks && !columns ? 0 : Kernel::room(call.n));
  const PerThread<S> transposed(threads, columns ? 3 * kColumns * pitch_of(call.n) : 0);
  const bool split = Kernel::kSplits && call.n >= kSplitRow && call.rows < 8 * threads && threads > 1;
  const bool streams = call.rows * call.n * static_cast<int64_t>(sizeof(S)) >= kStreamBytes && !columns;
  typename Kernel::Part parts[kMaxThreads];
  parallel(threads, [&](const Team& team) {
    alignas(64) C buffers[4 * kChunk];
    const Rows<S> rows{&call, buffers, room.of(team), streams};
    if (columns) {
      column_rows(call, team, kernel, rows, transposed.of(team));
    } else if (split) {
      if constexpr (Kernel::kSplits) split_rows(call, team, kernel, rows, parts);
    } else if (blocks) {
      if constexpr (kBlocks) block_rows(call, team, kernel, rows);
    } else {
      int64_t first, last;
      team.share(call.rows, 1, first, last);
      some_rows(call, kernel, rows, first, last);
    }
    if (streams) finish_streams();
  });
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
