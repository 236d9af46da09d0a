// Ratio maps on rows: w = g(x) / (extra + sum of g), g relative to a shift of the row; maps_ratio.h has the formulas.
//
// Out of cache a row is visited twice: `partial` sums numerators chunk by chunk, each chunk in the first-level cache
// relative to the largest entry so far, and `write` computes numerators again, which costs less than reading them back.
// A pair (shift, sum) is an extended exponent and its mantissa; unlike a power of two as shift, x - shift is exact for
// scores near the maximum, however large (n ln 2 loses digits from |x| = 2^15 on).
#pragma once

#include "maps_ratio.h"
#include "run.h"

namespace manymax::MANYMAX_ISA {

// Rows up to here keep their numerators in y and rescale them: they come back from a second-level cache faster than
// exp runs again.
inline constexpr int64_t kReloadBytes = 1 << 18;

template <class C>
struct Total {
  C shift;  // -inf for no entry yet
  C sum;
  C dot;  // backwards: the sum of numerator * gradient
};

template <class Map, class C>
MM_INLINE Total<C> merge_totals(const Map& map, Total<C> a, Total<C> b) {
  const C shift = a.shift > b.shift ? a.shift : b.shift;
  if (shift == -kInfinity<C>) return {shift, a.sum + b.sum, a.dot + b.dot};  // 0, or NaN where a NaN was
  const C scale_a = a.shift == -kInfinity<C> ? C{1} : map.rescale(map.usable(a.shift), map.usable(shift));
  const C scale_b = b.shift == -kInfinity<C> ? C{1} : map.rescale(map.usable(b.shift), map.usable(shift));
  return {shift, a.sum * scale_a + b.sum * scale_b, a.dot * scale_a + b.dot * scale_b};
}

// The total at a shift that is at least as high: nothing to do for most chunks, since a maximum rarely grows late.
template <class Map, class C>
MM_INLINE Total<C> raise(const Map& map, Total<C> total, C shift) {
  if (!(shift > total.shift)) return total;
  return merge_totals(map, total, Total<C>{shift, 0, 0});
}

template <class Map, class C>
MM_INLINE Total<C> total_of(const Map& map, const Reader<C>& x, int64_t first, int64_t last) {
  Total<C> total{-kInfinity<C>, 0, 0};
  chunks(first, last, [&](int64_t k, int64_t count) {
    const C* in = x.get(k, count);
    total = raise(map, total, shift_of(map, in, count));
    const Vec<C> at = splat(map.usable(total.shift));
    total.sum += sum_over(in, count, -kInfinity<C>, [&](Vec<C> v) { return map.numerator(v, at); });
  });
  return total;
}

// 1 / total; 0 for a row with nothing visible, so that its weights are 0 and not NaN.
template <class Map, class C>
MM_INLINE C factor_of(const Map& map, const Total<C>& part) {
  const C total = part.sum + map.extra(map.usable(part.shift));
  return total == 0 ? C{0} : 1 / total;
}

template <class C, template <class> class MapOf>
struct RatioForward {
  using Map = MapOf<C>;
  using Part = Total<C>;
  static constexpr bool kScratch = false;
  static constexpr bool kSplits = true;
  static constexpr bool kReadsScores = true;
  Map map;

  explicit RatioForward(const RowsCall& call) : map(call.options) {}

  void row(const Reader<C>& x, const Reader<C>& grad, const Writer<C>& y, int64_t n) const {
    const bool whole = n <= kChunk;
    const bool reload = x.direct && y.direct && n * static_cast<int64_t>(sizeof(C)) <= kReloadBytes;
    const bool in_place = x.direct && x.direct == y.direct;
    if ((!whole && !reload) || in_place) return write(partial(x, grad, 0, n), x, grad, y, 0, n, n);
    const C* in = x.get(0, n);
    C* out = y.begin(0);
    const C shift = shift_of(map, in, n);
    const Vec<C> at = splat(map.usable(shift));
    const C sum = map_and_sum(in, out, n, -kInfinity<C>, [&](Vec<C> v) { return map.numerator(v, at); });
    const Part part{shift, sum, 0};
    const C factor = factor_of(map, part);
    // A NaN must not reach entries that are not there: only the scores still tell them from weights that underflowed.
    if (factor != factor) return write(part, x, grad, y, 0, n, n);
    const Vec<C> by = splat(factor);
    map_over(out, out, n, [&](Vec<C> v) { return map.finish(v * by); });
    y.end(0, n);
  }

  Part partial(const Reader<C>& x, const Reader<C>&, int64_t first, int64_t last) const {
    return total_of(map, x, first, last);
  }
  Part merge(Part a, Part b) const { return merge_totals(map, a, b); }

  void write(Part part, const Reader<C>& x, const Reader<C>&, const Writer<C>& y, int64_t first, int64_t last,
             int64_t) const {
    const Vec<C> at = splat(map.usable(part.shift)), by = splat(factor_of(map, part));
    const auto weight = [&](Vec<C> v) { return keep(v != -kInfinity<C>, map.finish(map.numerator(v, at) * by)); };
    chunks(first, last, [&](int64_t k, int64_t count) {
      map_over(x.get(k, count), y.begin(k), count, weight);
      y.end(k, count);
    });
  }
};

}  // namespace manymax::MANYMAX_ISA
