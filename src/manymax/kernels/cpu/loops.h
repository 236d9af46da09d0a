// Loops over the entries of a chunk, four vectors at a time: four independent chains of instructions keep the arithmetic
// busy where one would wait for its own results (exp in 5.9 cycles a vector instead of 6.9). For the compiler to interleave
// them (SCHEDULE in CMakeLists.txt) all four are loaded first and stored last, since a store might change what is loaded.
#pragma once

#include "math.h"
#include "stage.h"

namespace manymax::MANYMAX_ISA {

inline constexpr int kUnroll = 4;

// Fetch what lies a page ahead of this vector, on the first visit of memory: the processor's own prefetchers stop at the end
// of a page. Further ahead, two operands with rows of 4 KB crowd each other out of the first-level cache. A prefetch past
// the end of a tensor touches nothing.
inline constexpr int64_t kAheadBytes = 4096;
template <class C>
MM_INLINE void prefetch_ahead(const C* x) {
  __builtin_prefetch(reinterpret_cast<const char*>(x) + kAheadBytes);
}

// How much of a vector a loop's body covers: all of it, or the first n < kLanes entries at the end of a row.
struct Whole {};
struct Rest {
  int64_t n;
};
template <class C>
MM_INLINE Vec<C> load(const C* p, Whole, C) {
  return load(p);
}
template <class C>
MM_INLINE Vec<C> load(const C* p, Rest rest, C fill) {
  return load(p, rest.n, fill);
}
template <class C>
MM_INLINE void store(C* p, Whole, Vec<C> x) {
  store(p, x);
}
template <class C>
MM_INLINE void store(C* p, Rest rest, Vec<C> x) {
  store(p, rest.n, x);
}

// Vectors of two operands.
template <class C>
struct Two {
  Vec<C> x, g;
};

// put(i, span, work(get(i, span), u)) for every vector of n entries: i its first entry, span Whole or Rest, u which of
// kUnroll accumulators is free.
template <class C, class Get, class Work, class Put>
MM_INLINE void vectors(int64_t n, const Get& get, const Work& work, const Put& put) {
  constexpr int L = kLanes<C>;
  using In = decltype(get(n, Whole{}));
  using Out = decltype(work(get(n, Whole{}), 0));
  int64_t i = 0;
  for (; i + kUnroll * L <= n; i += kUnroll * L) {
    In in[kUnroll];
    Out out[kUnroll];
#pragma GCC unroll 4
    for (int u = 0; u < kUnroll; ++u) in[u] = get(i + u * L, Whole{});
#pragma GCC unroll 4
    for (int u = 0; u < kUnroll; ++u) out[u] = work(in[u], u);
#pragma GCC unroll 4
    for (int u = 0; u < kUnroll; ++u) put(i + u * L, Whole{}, out[u]);
  }
  for (; i + L <= n; i += L) put(i, Whole{}, work(get(i, Whole{}), 0));
  if (i < n) put(i, Rest{n - i}, work(get(i, Rest{n - i}), 1));
}

template <class C>
MM_INLINE C sum_of(const Vec<C> (&a)[kUnroll]) {
  return reduce_add((a[0] + a[1]) + (a[2] + a[3]));
}
template <class C>
MM_INLINE C max_of(const Vec<C> (&m)[kUnroll]) {
  return reduce_max(max(max(m[0], m[1]), max(m[2], m[3])));
}

struct Nowhere {
  template <class At, class Span, class V>
  MM_MEMBER void operator()(const At&, Span, V) const {}
};

// The sum of body(x); the last vector is filled up with `fill`. With 64 lanes the rounding error of a sum is near that of
// a pairwise sum.
template <class C, class Body>
MM_INLINE C sum_over(const C* x, int64_t n, C fill, const Body& body) {
  Vec<C> a[kUnroll] = {};
  const auto get = [&](int64_t i, auto span) { return load(x + i, span, fill); };
  const auto work = [&](Vec<C> v, int u) {
    a[u] += body(v);
    return v;
  };
  vectors<C>(n, get, work, [&](int64_t i, auto, Vec<C>) { prefetch_ahead(x + i); });
  return sum_of<C>(a);
}

// The sum of body(x, g).
template <class C, class Body>
MM_INLINE C sum_over(const C* x, const C* g, int64_t n, C fill, const Body& body) {
  Vec<C> a[kUnroll] = {};
  const auto get = [&](int64_t i, auto span) { return Two<C>{load(x + i, span, fill), load(g + i, span, C{0})}; };
  const auto work = [&](Two<C> v, int u) {
    a[u] += body(v.x, v.g);
    return v.x;
  };
  vectors<C>(n, get, work, [&](int64_t i, auto, Vec<C>) { prefetch_ahead(x + i), prefetch_ahead(g + i); });
  return sum_of<C>(a);
}

// The maximum of body(x), NaNs skipped; -inf for none.
template <class C, class Body>
MM_INLINE C max_over(const C* x, int64_t n, const Body& body) {
  Vec<C> m[kUnroll] = {splat(-kInfinity<C>), splat(-kInfinity<C>), splat(-kInfinity<C>), splat(-kInfinity<C>)};
  const auto get = [&](int64_t i, auto span) { return load(x + i, span, -kInfinity<C>); };
  vectors<C>(n, get, [&](Vec<C> v, int u) { return m[u] = max(body(v), m[u]); }, Nowhere{});
  return max_of<C>(m);
}

// y = body(x), which is nowhere where y is null; returns its sum, and the largest x, NaNs skipped.
template <class C, class Body>
MM_INLINE C map_sum_max(const C* x, C* y, int64_t n, C& largest, const Body& body) {
  Vec<C> a[kUnroll] = {};
  Vec<C> m[kUnroll] = {splat(-kInfinity<C>), splat(-kInfinity<C>), splat(-kInfinity<C>), splat(-kInfinity<C>)};
  const auto get = [&](int64_t i, auto span) { return load(x + i, span, -kInfinity<C>); };
  const auto work = [&](Vec<C> v, int u) {
    const Vec<C> w = body(v);
    m[u] = max(v, m[u]);
    a[u] += w;
    return w;
  };
  vectors<C>(n, get, work, [&](int64_t i, auto span, Vec<C> w) {
    prefetch_ahead(x + i);
    if (y) store(y + i, span, w);
  });
  largest = max_of<C>(m);
  return sum_of<C>(a);
}

// Of how many entries `takes` holds, which it must not of a NaN.
template <class C, class Takes>
MM_INLINE int64_t count_where(const C* x, int64_t n, const Takes& takes) {
  constexpr int L = kLanes<C>;
  Mask<C> found{};  // less one for each
  int64_t i = 0;
  for (; i + L <= n; i += L) found += takes(load(x + i));
  if (i < n) found += takes(load(x + i, n - i, static_cast<C>(__builtin_nan(""))));
  int64_t count = 0;
  for (int lane = 0; lane < L; ++lane) count -= found[lane];
  return count;
}
template <class C>
MM_INLINE int64_t count_visible(const C* x, int64_t n) {
  return n - count_where(x, n, [](Vec<C> v) { return v == -kInfinity<C>; });
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
