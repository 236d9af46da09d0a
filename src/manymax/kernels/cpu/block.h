// Short rows, as many at a time as a vector has lanes: their reductions end in one vector, lane r for row r, so that what
// is done once a row (a logarithm, a division) is done once a block. block_loops.h has the loops.
#pragma once

#include "loops.h"

namespace manymax::MANYMAX_ISA {

// The longest row that blocks take: scores, numerators and the next block share the first-level cache.
template <class C>
inline constexpr int64_t kLongestInBlock = kChunk / kLanes<C> / 2;

// Where one row of a block lies. Loops hold it in registers: what they store might, for all the compiler knows, change
// a Block in memory.
template <class C>
struct Row {
  const C* x;
  const C* grad;
  C* room;
};

// kLanes rows: where a call has fewer left, rows of zeros complete them in a buffer.
template <class C>
struct Block {
  const C* x;
  int64_t x_pitch;  // from one row to the next
  const C* grad;
  int64_t grad_pitch;
  C* y;
  int64_t y_pitch;
  C* room;  // a chunk, for numerators; its rows begin at whole vectors
  int64_t room_pitch;
  int64_t n;  // entries of a row
  bool streams;

  MM_MEMBER Row<C> row(int r) const { return {x + r * x_pitch, grad + r * grad_pitch, room + r * room_pitch}; }
};

// The lanes of a vector, to be taken one by one as rows come up.
template <class C>
struct PerRow {
  alignas(kVectorBytes) C lane[kLanes<C>];
  MM_MEMBER Vec<C> operator[](int r) const { return splat(lane[r]); }
};
template <class C>
MM_INLINE PerRow<C> per_row(Vec<C> x) {
  PerRow<C> result;
  store(result.lane, x);
  return result;
}
// The same of f(row).
template <class C, class F>
MM_INLINE PerRow<C> per_row_of(const F& f) {
  PerRow<C> result;
  for (int r = 0; r < kLanes<C>; ++r) result.lane[r] = f(r);
  return result;
}

// Whether a lane is NaN (or infinite, which is as rare).
template <class V>
MM_INLINE bool has_nan(V x) {
  return any(x - x != V{});
}

// Loads of a block's scores or weights, and of its gradients too.
template <class C>
struct Scores {
  C fill;
  template <class Span>
  MM_MEMBER Vec<C> operator()(const Row<C>& row, int64_t i, Span span) const {
    return load(row.x + i, span, fill);
  }
};
template <class C>
struct ScoresAndGrads {
  C fill;
  template <class Span>
  MM_MEMBER Two<C> operator()(const Row<C>& row, int64_t i, Span span) const {
    return {load(row.x + i, span, fill), load(row.grad + i, span, C{0})};
  }
};

}  // namespace manymax::MANYMAX_ISA
