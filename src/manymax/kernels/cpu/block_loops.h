// Loops over a block of short rows: reductions to a vector with a lane for each row, and writing.
#pragma once

#include "block.h"
#include "lanes.h"
#include "stream.h"

namespace manymax::MANYMAX_ISA {

// From four vectors a row on, rows are walked one by one, in the order in which they lie in memory: out of cache four
// rows side by side took half as long again.
template <class C>
inline constexpr int64_t kSideBySide = kUnroll * kLanes<C>;

// Lane r: what op makes of row r's vectors. get(row, first entry, Whole or Rest) loads a vector, work(it, r) is taken,
// and put(row, first entry, it) may keep it.
template <class C, class Op, class Get, class Work, class Put>
MM_INLINE Vec<C> reduce_rows(const Block<C>& b, C start, const Op& op, const Get& get, const Work& work,
                             const Put& put) {
  constexpr int L = kLanes<C>;
  using In = decltype(get(Row<C>{}, 0, Whole{}));
  const int64_t n = b.n;
  Vec<C> results[L];
  if (n >= kSideBySide<C>) {
    for (int r = 0; r < L; ++r) {
      const Row<C> row = b.row(r);
      Vec<C> a[kUnroll] = {splat(start), splat(start), splat(start), splat(start)};
      vectors<C>(n, [&](int64_t i, auto span) { return get(row, i, span); },
                 [&](In in, int u) {
                   const Vec<C> out = work(in, r);
                   a[u] = op(out, a[u]);
                   return out;
                 },
                 [&](int64_t i, auto, Vec<C> out) { put(row, i, out); });
      results[r] = op(op(a[0], a[1]), op(a[2], a[3]));
    }
    return reduce_lanes<C>(results, op);
  }
#pragma GCC unroll 1
  for (int r = 0; r < L; r += kUnroll) {
    const Row<C> rows[kUnroll] = {b.row(r), b.row(r + 1), b.row(r + 2), b.row(r + 3)};
    Vec<C> a[kUnroll] = {splat(start), splat(start), splat(start), splat(start)};
    const auto step = [&](int64_t i, auto span) __attribute__((always_inline)) {
      In in[kUnroll];
      Vec<C> out[kUnroll];
#pragma GCC unroll 4
      for (int u = 0; u < kUnroll; ++u) in[u] = get(rows[u], i, span);
#pragma GCC unroll 4
      for (int u = 0; u < kUnroll; ++u) a[u] = op(out[u] = work(in[u], r + u), a[u]);
#pragma GCC unroll 4
      for (int u = 0; u < kUnroll; ++u) put(rows[u], i, out[u]);
    };
    int64_t i = 0;
    for (; i + L <= n; i += L) step(i, Whole{});
    if (i < n) step(i, Rest{n - i});
#pragma GCC unroll 4
    for (int u = 0; u < kUnroll; ++u) results[r + u] = a[u];
  }
  return reduce_lanes<C>(results, op);
}

template <class C, class Get, class Work, class Put = Nowhere>
MM_INLINE Vec<C> sum_rows(const Block<C>& b, const Get& get, const Work& work, const Put& put = {}) {
  return reduce_rows(b, C{0}, [](Vec<C> v, Vec<C> a) { return v + a; }, get, work, put);
}
// The first visit of a block fetches what lies ahead in the order of memory, not in that of the loop.
template <class C, class Get, class Work>
MM_INLINE Vec<C> max_rows(const Block<C>& b, const Get& get, const Work& work) {
  const C* x = b.x;
  const auto fetch = [&](const Row<C>&, int64_t, Vec<C>) { prefetch_ahead(x), x += kLanes<C>; };
  return reduce_rows(b, -kInfinity<C>, [](Vec<C> v, Vec<C> m) { return max(v, m); }, get, work, fetch);
}
template <class C, class Work>
MM_INLINE Vec<C> sum_products(const Block<C>& b, C fill, const Work& work) {
  const C *x = b.x, *g = b.grad;
  const auto fetch = [&](const Row<C>&, int64_t, Vec<C>) {
    prefetch_ahead(x), x += kLanes<C>;
    prefetch_ahead(g), g += kLanes<C>;
  };
  return sum_rows(b, ScoresAndGrads<C>{fill}, [&](Two<C> in, int) { return work(in.x, in.g); }, fetch);
}

// y = work(get(row, first entry, Whole or Rest), r) for every vector of the block.
template <class C, class Get, class Work>
MM_INLINE void write_rows(const Block<C>& b, const Get& get, const Work& work) {
  constexpr int L = kLanes<C>;
  using In = decltype(get(Row<C>{}, 0, Whole{}));
  const int64_t n = b.n;
  const int64_t pitch = b.y_pitch;
  const bool streams = b.streams;
  // The next block is on its way while this one is written.
  const C *next = b.x + L * b.x_pitch, *next_grad = b.grad + L * b.grad_pitch;
  const auto fetch = [&] {
    __builtin_prefetch(next), next += L;
    if constexpr (__is_same(In, Two<C>)) __builtin_prefetch(next_grad), next_grad += L;
  };
  const auto put = [&](C* out, auto span, Vec<C> w) {
    fetch();
    if constexpr (__is_same(decltype(span), Whole)) {
      if (streams) return stream(out, w);
    }
    store(out, span, w);
  };
  if (n >= kSideBySide<C>) {
    for (int r = 0; r < L; ++r) {
      const Row<C> row = b.row(r);
      C* const y = b.y + r * pitch;
      vectors<C>(n, [&](int64_t i, auto span) { return get(row, i, span); }, [&](In in, int) { return work(in, r); },
                 [&](int64_t i, auto span, Vec<C> out) { put(y + i, span, out); });
    }
    return;
  }
#pragma GCC unroll 1
  for (int r = 0; r < L; r += kUnroll) {
    const Row<C> rows[kUnroll] = {b.row(r), b.row(r + 1), b.row(r + 2), b.row(r + 3)};
    C* const y = b.y + r * pitch;
    const auto step = [&](int64_t i, auto span) __attribute__((always_inline)) {
      In in[kUnroll];
      Vec<C> out[kUnroll];
#pragma GCC unroll 4
      for (int u = 0; u < kUnroll; ++u) in[u] = get(rows[u], i, span);
#pragma GCC unroll 4
      for (int u = 0; u < kUnroll; ++u) out[u] = work(in[u], r + u);
#pragma GCC unroll 4
      for (int u = 0; u < kUnroll; ++u) put(y + u * pitch + i, span, out[u]);
    };
    int64_t i = 0;
    for (; i + L <= n; i += L) step(i, Whole{});
    if (i < n) step(i, Rest{n - i});
  }
}

// One number a row.
template <class C>
MM_INLINE void write_results(const Block<C>& b, Vec<C> results) {
  if (b.y_pitch == 1) return store(b.y, results);
  for (int r = 0; r < kLanes<C>; ++r) b.y[r * b.y_pitch] = results[r];
}

}  // namespace manymax::MANYMAX_ISA
