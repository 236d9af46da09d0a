// Entry of every row kernel: chooses threads, room and the way to walk, then runs the kernel for the storage type.
#pragma once

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
  for (int64_t r = first; r < last; ++r)
    kernel.row(rows.x(r, Kernel::kReadsScores), rows.grad(r), rows.y(r), call.n);
}

// A reduction of scores that are used where they are needs no buffers: 16 rows of 256 still fit into the first-level cache.
template <class Kernel, class S>
static int64_t longest_in_block(const RowsCall& call) {
  using C = Compute<S>;
  const bool direct = Rows<S>::kSame && call.dims == 1 && call.x.step == 1 && !call.mask.data && call.temperature == 1;
  return Kernel::kReduces && direct ? 2 * kLongestInBlock<C> : kLongestInBlock<C>;
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
    auto block = rows.block(r, count, Kernel::kReadsScores, width);
    kernel.block(block);
    rows.finish(block, r, count, width);
    // Finding out where a block lies took a third of the time of rows of 16.
    for (const bool steady = rows.steady(block); steady && r + 2 * L <= last; r += L) {
      block.x += L * block.x_pitch, block.grad += L * block.grad_pitch, block.y += L * block.y_pitch;
      kernel.block(block);
    }
  }
}

// Memory for each thread, backed lazily: a kernel that keeps few candidates of a long row touches few pages.
template <class T>
struct PerThread {
  T* data = nullptr;
  int64_t each;
  PerThread(int threads, int64_t entries) : each((entries + 63) / 64 * 64) {  // parts of two threads share no cache line
    if (entries == 0) return;
    data = static_cast<T*>(__builtin_malloc(static_cast<size_t>(threads * each) * sizeof(T)));
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
