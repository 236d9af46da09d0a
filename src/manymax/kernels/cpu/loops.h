// Loops over the entries of a chunk.
#pragma once

#include "math.h"
#include "stage.h"

namespace manymax::MANYMAX_ISA {

// Two vectors' worth of what lies one chunk ahead. The visit before this one waited for memory (a maximum keeps no
// arithmetic busy), so the next such visit finds its entries in the first-level cache: logsumexp out of cache takes half
// the time. A prefetch past the end of the tensor touches nothing.
template <class C>
MM_INLINE void prefetch_ahead(const C* x) {
  constexpr int kAhead = static_cast<int>(kChunk * sizeof(C));
  for (int line = 0; line < 2 * kVectorBytes; line += 64)
    __builtin_prefetch(reinterpret_cast<const char*>(x) + kAhead + line);
}

// body(x) for every vector; the last one is filled up with `fill`. Two accumulators hide the latency of an addition, and
// with 16 lanes keep the rounding error of a sum near that of a pairwise sum.
template <class C, class Body>
MM_INLINE C sum_over(const C* x, int64_t n, C fill, const Body& body) {
  Vec<C> a{}, b{};
  int64_t i = 0;
  for (; i + 2 * kLanes<C> <= n; i += 2 * kLanes<C>) {
    prefetch_ahead(x + i);
    a += body(load(x + i));
    b += body(load(x + i + kLanes<C>));
  }
  if (i + kLanes<C> <= n) {
    a += body(load(x + i));
    i += kLanes<C>;
  }
  if (i < n) b += body(load(x + i, n - i, fill));
  return reduce_add(a + b);
}

// The sum of body(x, g).
template <class C, class Body>
MM_INLINE C sum_over(const C* x, const C* g, int64_t n, C fill, const Body& body) {
  constexpr int L = kLanes<C>;
  Vec<C> a{}, b{};
  int64_t i = 0;
  for (; i + 2 * L <= n; i += 2 * L) {
    a += body(load(x + i), load(g + i));
    b += body(load(x + i + L), load(g + i + L));
  }
  if (i + L <= n) {
    a += body(load(x + i), load(g + i));
    i += L;
  }
  if (i < n) b += body(load(x + i, n - i, fill), load(g + i, n - i, C{0}));
  return reduce_add(a + b);
}

// The maximum of body(x), NaNs skipped; -inf for none. Four accumulators: loads, not latency, set the pace.
template <class C, class Body>
MM_INLINE C max_over(const C* x, int64_t n, const Body& body) {
  constexpr int L = kLanes<C>;
  Vec<C> m[4] = {splat(-kInfinity<C>), splat(-kInfinity<C>), splat(-kInfinity<C>), splat(-kInfinity<C>)};
  int64_t i = 0;
  for (; i + 4 * L <= n; i += 4 * L)
    for (int u = 0; u < 4; ++u) m[u] = max(body(load(x + i + u * L)), m[u]);
  for (; i + L <= n; i += L) m[0] = max(body(load(x + i)), m[0]);
  if (i < n) m[1] = max(body(load(x + i, n - i, -kInfinity<C>)), m[1]);
  return reduce_max(max(max(m[0], m[1]), max(m[2], m[3])));
}

// y = body(x).
template <class C, class Body>
MM_INLINE void map_over(const C* x, C* y, int64_t n, const Body& body) {
  constexpr int L = kLanes<C>;
  int64_t i = 0;
  for (; i + L <= n; i += L) store(y + i, body(load(x + i)));
  if (i < n) store(y + i, n - i, body(load(x + i, n - i, C{0})));
}

// y = body(x, g).
template <class C, class Body>
MM_INLINE void map_over(const C* x, const C* g, C* y, int64_t n, const Body& body) {
  constexpr int L = kLanes<C>;
  int64_t i = 0;
  for (; i + L <= n; i += L) store(y + i, body(load(x + i), load(g + i)));
  if (i < n) store(y + i, n - i, body(load(x + i, n - i, C{0}), load(g + i, n - i, C{0})));
}

// y = body(x), and the sum of y.
template <class C, class Body>
MM_INLINE C map_and_sum(const C* x, C* y, int64_t n, C fill, const Body& body) {
  constexpr int L = kLanes<C>;
  Vec<C> a{};
  int64_t i = 0;
  for (; i + L <= n; i += L) {
    if (i % (2 * L) == 0) prefetch_ahead(x + i);
    const Vec<C> w = body(load(x + i));
    store(y + i, w);
    a += w;
  }
  if (i < n) {
    const Vec<C> w = body(load(x + i, n - i, fill));
    store(y + i, n - i, w);
    a += w;
  }
  return reduce_add(a);
}

// f(first, count) for each chunk of [first, last).
template <class F>
MM_INLINE void chunks(int64_t first, int64_t last, const F& f) {
  for (int64_t k = first; k < last; k += kChunk) f(k, last - k < kChunk ? last - k : kChunk);
}

// Scalar functions by the names of their types.
MM_INLINE float scalar_exp(float x) { return __builtin_expf(x); }
MM_INLINE double scalar_exp(double x) { return __builtin_exp(x); }
MM_INLINE float scalar_log(float x) { return __builtin_logf(x); }
MM_INLINE double scalar_log(double x) { return __builtin_log(x); }

}  // namespace manymax::MANYMAX_ISA
