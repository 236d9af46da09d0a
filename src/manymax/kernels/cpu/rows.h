// The driver of row kernels: walks over the rows of a call on several threads and hands each row to a kernel as readers
// and a writer. A kernel is a class template over the compute type:
//
//   template <class C> struct Kernel {
//     explicit Kernel(const RowsCall&);
//     static constexpr bool kScratch;    // whether it needs room for a row, y.scratch
//     static constexpr bool kReadsScores;  // x holds scores, to be masked and divided by the temperature; else weights
//     static constexpr bool kSplits;     // whether one row can be shared by threads: then partial, merge and write exist
//     void row(const Reader<C>& x, const Reader<C>& grad, const Writer<C>& y, int64_t n) const;
//     using Part = ...;                  // what a stretch of a row contributes
//     Part partial(x, grad, first, last) const;  Part merge(Part, Part) const;
//     void write(const Part& whole, x, grad, y, first, last, n) const;
//   };
#pragma once

#include <new>

#include "parallel.h"
#include "stage.h"

namespace manymax::MANYMAX_ISA {

// Rows are split over threads from here on: two barriers cost 2 us, the row itself 50 us and more.
inline constexpr int64_t kSplitRow = 1 << 18;
inline constexpr int kMaxThreads = 256;

// A row of n entries and one vector, which a compressing store writes whole; parts of two threads share no cache line.
static inline int64_t scratch_of(int64_t n) { return (n + 64 + 63) / 64 * 64; }

// The offset of row r in each operand.
static inline int64_t offset_of(const RowsCall& call, const Operand& operand, int64_t r) {
  int64_t offset = 0;
  for (int d = call.dims - 1; d > 0; --d) {
    offset += r % call.sizes[d] * operand.strides[d];
    r /= call.sizes[d];
  }
  return call.dims > 0 ? offset + r * operand.strides[0] : 0;
}

template <class S>
struct Rows {
  using C = Compute<S>;
  static constexpr bool kSame = sizeof(S) == sizeof(C);

  const RowsCall* call;
  C* buffers;  // 3 * kChunk
  C* scratch;  // scratch_of(n), for kernels with kScratch

  Reader<C> reader(const Operand& operand, int64_t r, bool scores, C* buffer) const {
    const S* p = static_cast<const S*>(operand.data) + offset_of(*call, operand, r);
    const auto* mask = static_cast<const uint8_t*>(scores ? call->mask.data : nullptr);
    if (mask) mask += offset_of(*call, call->mask, r);
    const double temperature = scores ? call->temperature : 1;
    Reader<C> result;
    if constexpr (kSame) {
      if (operand.step == 1 && !mask && temperature == 1) result.direct = p;
    }
    result.source = {p, operand.step, mask, call->mask.step, temperature};
    result.copy = stage<S>;
    result.buffer = buffer;
    return result;
  }

  Reader<C> x(int64_t r, bool scores) const { return reader(call->x, r, scores, buffers); }
  Reader<C> grad(int64_t r) const {
    return call->grad.data ? reader(call->grad, r, false, buffers + kChunk) : Reader<C>{};
  }
  // A gradient of scores is divided by the temperature, as the scores were.
  Writer<C> y(int64_t r) const {
    S* p = static_cast<S*>(const_cast<void*>(call->y.data)) + offset_of(*call, call->y, r);
    Writer<C> result;
    result.temperature = call->grad.data ? call->temperature : 1;
    if constexpr (kSame) {
      if (call->y.step == 1 && result.temperature == 1) result.direct = p;
    }
    result.data = p;
    result.step = call->y.step;
    result.copy = unstage<S>;
    result.buffer = buffers + 2 * kChunk;
    result.scratch = scratch;
    return result;
  }
};

template <template <class> class Kernel, class S>
static void split_rows(const RowsCall& call, const Team& team, const Kernel<Compute<S>>& kernel, const Rows<S>& rows,
                       typename Kernel<Compute<S>>::Part* parts) {
  int64_t first, last;
  team.share(call.n, kChunk, first, last);
  for (int64_t r = 0; r < call.rows; ++r) {
    const auto x = rows.x(r, Kernel<Compute<S>>::kReadsScores);
    const auto grad = rows.grad(r);
    parts[team.rank] = kernel.partial(x, grad, first, last);
    team.barrier();
    auto whole = parts[0];
    for (int t = 1; t < team.size; ++t) whole = kernel.merge(whole, parts[t]);
    team.barrier();  // parts are free for the next row
    kernel.write(whole, x, grad, rows.y(r), first, last, call.n);
  }
}

}  // namespace manymax::MANYMAX_ISA
