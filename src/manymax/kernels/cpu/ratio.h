// Ratio maps: w = g(x) / (extra + sum of g), g relative to a shift of the row. A map is a class over the compute type:
//
//   template <class C> struct Map {
//     explicit Map(const RowsCall&);
//     C shift(const C* x, int64_t n) const;              // of these entries: their maximum, or 0
//     Vec<C> numerator(Vec<C> x, Vec<C> shift) const;    // exactly 0 at x = -inf
//     C rescale(C from, C to) const;                     // what turns numerators at `from` into numerators at `to`
//     C extra(C shift) const;                            // in units of a numerator at that shift
//   };
//
// Out of cache a row is visited twice: `partial` sums numerators chunk by chunk, each chunk in the first-level cache
// relative to the largest entry so far, and `write` computes numerators again, which costs less than reading them back.
// A pair (shift, sum) is an extended exponent and its mantissa; unlike a power of two as shift, x - shift is exact for
// scores near the maximum, however large (n ln 2 loses digits from |x| = 2^15 on).
#pragma once

#include "loops.h"
#include "rows.h"

namespace manymax::MANYMAX_ISA {

template <class C>
struct Total {
  C shift;  // -inf for no entry yet
  C sum;
};

// Rows up to here keep their numerators in y and rescale them: 64 KB of float32 come back from a second-level cache
// faster than exp runs again.
inline constexpr int64_t kReloadBytes = 1 << 18;

template <class Map, class C>
MM_INLINE Total<C> merge_totals(const Map& map, Total<C> a, Total<C> b) {
  const C shift = a.shift > b.shift ? a.shift : b.shift;
  if (shift == -kInfinity<C>) return {shift, a.sum + b.sum};  // 0, or NaN where a NaN was
  return {shift, a.sum * map.rescale(a.shift, shift) + b.sum * map.rescale(b.shift, shift)};
}

template <class Map, class C>
MM_INLINE Total<C> total_of(const Map& map, const Reader<C>& x, int64_t first, int64_t last) {
  Total<C> total{-kInfinity<C>, 0};
  chunks(first, last, [&](int64_t k, int64_t count) {
    const C* in = x.get(k, count);
    const C shift = map.shift(in, count);
    const Vec<C> at = splat(shift == -kInfinity<C> ? C{0} : shift);
    const C sum = sum_over(in, count, -kInfinity<C>, [&](Vec<C> v) { return map.numerator(v, at); });
    total = merge_totals(map, total, Total<C>{shift, sum});
  });
  return total;
}

// The shift that numerators use: finite unless the row holds +inf, whose weights are NaN.
template <class C>
MM_INLINE C usable(C shift) {
  return shift == -kInfinity<C> ? C{0} : shift;
}

template <class C, template <class> class MapOf>
struct RatioForward {
  using Map = MapOf<C>;
  using Part = Total<C>;
  static constexpr bool kSplits = true;
  static constexpr bool kReadsScores = true;
  Map map;

  explicit RatioForward(const RowsCall& call) : map(call) {}

  // 1 / total; 0 for a row with nothing visible, so that its weights are 0 and not NaN.
  C factor(Part part) const {
    const C total = part.sum + map.extra(usable(part.shift));
    return total == 0 ? C{0} : 1 / total;
  }

  void row(const Reader<C>& x, const Reader<C>& grad, const Writer<C>& y, int64_t n) const {
    const bool whole = n <= kChunk;
    const bool reload = x.direct && y.direct && n * static_cast<int64_t>(sizeof(C)) <= kReloadBytes;
    if (!whole && !reload) return write(partial(x, grad, 0, n), x, grad, y, 0, n, n);
    const C* in = x.get(0, n);
    C* out = y.begin(0);
    const C shift = map.shift(in, n);
    const Vec<C> at = splat(usable(shift));
    const C sum = map_and_sum(in, out, n, -kInfinity<C>, [&](Vec<C> v) { return map.numerator(v, at); });
    const Vec<C> by = splat(factor({shift, sum}));
    map_over(out, out, n, [&](Vec<C> v) { return v * by; });
    y.end(0, n);
  }

  Part partial(const Reader<C>& x, const Reader<C>&, int64_t first, int64_t last) const {
    return total_of(map, x, first, last);
  }
  Part merge(Part a, Part b) const { return merge_totals(map, a, b); }

  void write(Part part, const Reader<C>& x, const Reader<C>&, const Writer<C>& y, int64_t first, int64_t last,
             int64_t) const {
    const Vec<C> at = splat(usable(part.shift)), by = splat(factor(part));
    chunks(first, last, [&](int64_t k, int64_t count) {
      map_over(x.get(k, count), y.begin(k), count, [&](Vec<C> v) { return map.numerator(v, at) * by; });
      y.end(k, count);
    });
  }
};

// Gradient from the weights, for maps whose numerator is its own derivative: w (grad - sum of w grad).
template <class C>
struct ExpBackward {
  using Part = C;
  static constexpr bool kSplits = true;
  static constexpr bool kReadsScores = false;

  explicit ExpBackward(const RowsCall&) {}

  void row(const Reader<C>& w, const Reader<C>& grad, const Writer<C>& y, int64_t n) const {
    write(partial(w, grad, 0, n), w, grad, y, 0, n, n);
  }
  // A weight of 0 takes no part, whatever its gradient holds.
  Part partial(const Reader<C>& w, const Reader<C>& grad, int64_t first, int64_t last) const {
    C dot = 0;
    chunks(first, last, [&](int64_t k, int64_t count) {
      const C* a = w.get(k, count);
      const C* g = grad.get(k, count);
      constexpr int L = kLanes<C>;
      Vec<C> sums[2] = {};
      int64_t i = 0;
      for (; i + 2 * L <= count; i += 2 * L)
        for (int u = 0; u < 2; ++u) sums[u] += product(load(a + i + u * L), load(g + i + u * L));
      if (i + L <= count) {
        sums[0] += product(load(a + i), load(g + i));
        i += L;
      }
      if (i < count) sums[1] += product(load(a + i, count - i, C{0}), load(g + i, count - i, C{0}));
      dot += reduce_add<C>(sums[0] + sums[1]);
    });
    return dot;
  }
  static Vec<C> product(Vec<C> w, Vec<C> g) { return keep(w != Vec<C>{}, w * g); }
  Part merge(Part a, Part b) const { return a + b; }
  void write(Part dot, const Reader<C>& w, const Reader<C>& grad, const Writer<C>& y, int64_t first, int64_t last,
             int64_t) const {
    const Vec<C> mean = splat(dot);
    chunks(first, last, [&](int64_t k, int64_t count) {
      map_over(w.get(k, count), grad.get(k, count), y.begin(k), count,
               [&](Vec<C> v, Vec<C> g) { return keep(v != Vec<C>{}, v * (g - mean)); });
      y.end(k, count);
    });
  }
};

}  // namespace manymax::MANYMAX_ISA
