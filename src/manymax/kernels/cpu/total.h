// Denominators of ratio maps: the sum of numerators of a stretch of a row, or of each row of a block.
//
// A pair (shift, sum) is an extended exponent and its mantissa; unlike a power of two as shift, x - shift is exact for
// scores near the maximum, however large (n ln 2 loses digits from |x| = 2^15 on). exp needs no visit for the maximum
// before: numerators are relative to the largest entry so far, which may be exceeded by the map's headroom before
// anything overflows.
#pragma once

#include "block_loops.h"
#include "maps_ratio.h"

namespace manymax::MANYMAX_ISA {

// The first look, for a shift to begin with.
inline constexpr int64_t kGlance = 64;

template <class C>
struct Total {
  C shift;  // -inf for no entry yet
  C sum;
  C dot;        // backwards: the sum of numerator * gradient
  C count = 0;  // visible entries, of maps that count them
};

template <class Map, class C>
MM_INLINE Total<C> merge_totals(const Map& map, Total<C> a, Total<C> b) {
  const C shift = a.shift > b.shift ? a.shift : b.shift;
  if (shift == -kInfinity<C>) return {shift, a.sum + b.sum, a.dot + b.dot, a.count + b.count};  // 0, or NaN where a NaN was
  const C scale_a = a.shift == -kInfinity<C> ? C{1} : map.rescale(map.usable(a.shift), map.usable(shift));
  const C scale_b = b.shift == -kInfinity<C> ? C{1} : map.rescale(map.usable(b.shift), map.usable(shift));
  return {shift, a.sum * scale_a + b.sum * scale_b, a.dot * scale_a + b.dot * scale_b, a.count + b.count};
}

// The total at a shift that is at least as high: nothing to do for most chunks, since a maximum rarely grows late.
template <class Map, class C>
MM_INLINE Total<C> raise(const Map& map, Total<C> total, C shift) {
  if (!(shift > total.shift)) return total;
  return merge_totals(map, total, Total<C>{shift, 0, 0});
}

// Whether numerators at this shift hold entries as large as `top`.
template <class Map, class C>
MM_INLINE bool holds(const Map&, C shift, C top) {
  return !(top > shift + static_cast<C>(Map::kHeadroom));
}

template <class Map, class C>
MM_INLINE void count_chunk(const Map&, const C* x, int64_t count, Total<C>& total) {
  if constexpr (Map::kCounts) total.count += static_cast<C>(count_visible(x, count));
}

// Add a chunk to the total, which is then relative to the largest entry so far.
template <class Map, class C>
MM_INLINE void add_chunk(const Map& map, const C* x, int64_t count, Total<C>& total) {
  count_chunk(map, x, count, total);
  if constexpr (Map::kHeadroom > 0) {
    if (total.shift == -kInfinity<C>) total = raise(map, total, shift_of(map, x, count < kGlance ? count : kGlance));
    const Vec<C> at = splat(map.usable(total.shift));
    C top;
    const C sum = map_sum_max(x, static_cast<C*>(nullptr), count, top, [&](Vec<C> v) { return map.numerator(v, at); });
    if (holds(map, total.shift, top)) {
      total.sum += sum;
      // The shift may stay a little below the maximum: log(sum) + shift loses no more digits than for e times the terms.
      if (top > total.shift + 1) total = raise(map, total, top);
      return;
    }
  }
  total = raise(map, total, shift_of(map, x, count));
  const Vec<C> at = splat(map.usable(total.shift));
  total.sum += sum_over(x, count, -kInfinity<C>, [&](Vec<C> v) { return map.numerator(v, at); });
}

template <class Map, class C>
MM_INLINE Total<C> total_of(const Map& map, const Reader<C>& x, int64_t first, int64_t last) {
  Total<C> total{-kInfinity<C>, 0, 0};
  chunks(first, last, [&](int64_t k, int64_t count) { add_chunk(map, x.get(k, count), count, total); });
  return total;
}

template <class Map, class C>
MM_INLINE C denominator(const Map& map, const Total<C>& part) {
  const C extra = map.extra(map.usable(part.shift));
  return part.sum + (Map::kCounts ? extra * part.count : extra);
}

// 1 / total; 0 for a row with nothing visible, so that its weights are 0 and not NaN.
template <class Map, class C>
MM_INLINE C factor_of(const Map& map, const Total<C>& part) {
  const C total = denominator(map, part);
  return total == 0 ? C{0} : 1 / total;
}

// The same of a block: each row's usable shift, its denominator, and 1 / that.
template <class Map, class C>
MM_INLINE PerRow<C> shifts_of(const Map& map, const Block<C>& b) {
  Vec<C> top{};
  if constexpr (Map::kShifts) top = max_rows(b, Scores<C>{-kInfinity<C>}, [&](Vec<C> v, int) { return map.size(v); });
  return per_row_of<C>([&](int r) { return map.usable(top[r]); });
}
template <class C>
MM_INLINE Vec<C> visible_entries(const Block<C>& b) {
  return sum_rows(b, Scores<C>{-kInfinity<C>}, [](Vec<C> v, int) { return keep(v != -kInfinity<C>, splat(C{1})); });
}
template <class Map, class C>
MM_INLINE Vec<C> extras(const Map& map, const Block<C>& b, const PerRow<C>& shift) {
  const Vec<C> extra = load(per_row_of<C>([&](int r) { return map.extra(shift.lane[r]); }).lane);
  if constexpr (Map::kCounts) return extra * visible_entries(b);
  return extra;
}

// The sums of a block's numerators at these shifts, and the same with the numerators kept in the block's room.
template <class Map, class C>
struct Sums {
  const Map& map;
  const Block<C>& b;
  MM_MEMBER Vec<C> operator()(const PerRow<C>& shifts) const {
    const C* x = b.x;
    const auto fetch = [&](const Row<C>&, int64_t, Vec<C>) { prefetch_ahead(x), x += kLanes<C>; };
    return sum_rows(b, Scores<C>{-kInfinity<C>}, [&](Vec<C> v, int r) { return map.numerator(v, shifts[r]); }, fetch);
  }
};
template <class Map, class C>
struct StoredSums {
  const Map& map;
  const Block<C>& b;
  MM_MEMBER Vec<C> operator()(const PerRow<C>& shifts) const {
    return sum_rows(b, Scores<C>{-kInfinity<C>}, [&](Vec<C> v, int r) { return map.numerator(v, shifts[r]); },
                    [](const Row<C>& row, int64_t i, Vec<C> w) { store(row.room + i, w); });
  }
};

// The denominators of a block and the shifts that they are relative to; sum_at(shifts) adds numerators up.
//
// With headroom the first row's shift serves all rows, which spares a visit for their own, a third of the time of rows of 16.
// In this range of denominators no score that counts is further than 17 from it: their difference is off by 1e-6 at most.
template <class Map, class C, class SumAt>
MM_INLINE Vec<C> totals_of(const Map& map, const Block<C>& b, PerRow<C>& shifts, const SumAt& sum_at) {
  constexpr C kLeast = static_cast<C>(0x1p-12), kMost = static_cast<C>(0x1p24);
  if constexpr (Map::kHeadroom > 0) {
    const C shift = map.usable(shift_of(map, b.x, b.n < kGlance ? b.n : kGlance));
    shifts = per_row<C>(splat(shift));
    const Vec<C> totals = sum_at(shifts) + map.extra(shift);
    if (!any(((totals > kLeast) & (totals < kMost)) == 0)) return totals;
  }
  shifts = shifts_of(map, b);
  return sum_at(shifts) + extras(map, b, shifts);
}
template <class C>
MM_INLINE Vec<C> inverses(Vec<C> x) {
  return keep(x != Vec<C>{}, C{1} / x);
}

}  // namespace manymax::MANYMAX_ISA
