// Ratio maps on rows: w = g(x) / (extra + sum of g), g relative to a shift of the row; maps_ratio.h has the formulas.
//
// A row that fits into the second-level cache is read once: numerators go to a room of their own and are divided on the
// way out. A longer one is visited twice: `partial` sums numerators and `write` computes them again, which costs less than
// writing and reading them. Either way exp needs no visit for the maximum before: numerators are relative to the largest
// entry so far, which may be exceeded by the map's headroom before anything overflows. A pair (shift, sum) is an extended
// exponent and its mantissa; unlike a power of two as shift, x - shift is exact for scores near the maximum, however large
// (n ln 2 loses digits from |x| = 2^15 on).
#pragma once

#include "block.h"
#include "maps_ratio.h"
#include "run.h"

namespace manymax::MANYMAX_ISA {

// Rows up to here keep their numerators: half of a second-level cache of 1 MB, in which the room alone needs a place.
inline constexpr int64_t kRoomBytes = 1 << 19;
// The first look, for a shift to begin with.
inline constexpr int64_t kGlance = 64;

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

// Whether numerators at this shift hold entries as large as `top`.
template <class Map, class C>
MM_INLINE bool holds(const Map&, C shift, C top) {
  return !(top > shift + static_cast<C>(Map::kHeadroom));
}

// Add a chunk to the total, which is then relative to the largest entry so far.
template <class Map, class C>
MM_INLINE void add_chunk(const Map& map, const C* x, int64_t count, Total<C>& total) {
  if constexpr (Map::kHeadroom > 0) {
    if (total.shift == -kInfinity<C>) total = raise(map, total, shift_of(map, x, count < kGlance ? count : kGlance));
    const Vec<C> at = splat(map.usable(total.shift));
    C top;
    const C sum = map_sum_max(x, static_cast<C*>(nullptr), count, top, [&](Vec<C> v) { return map.numerator(v, at); });
    if (holds(map, total.shift, top)) {
      total.sum += sum;
      // By how much the shift may stay below the maximum: log(sum) + shift loses no more digits than for e times the terms.
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

// 1 / total; 0 for a row with nothing visible, so that its weights are 0 and not NaN.
template <class Map, class C>
MM_INLINE C factor_of(const Map& map, const Total<C>& part) {
  const C total = part.sum + map.extra(map.usable(part.shift));
  return total == 0 ? C{0} : 1 / total;
}

// The same of a block: each row's usable shift, its denominator, and 1 / that.
template <class Map, class C>
MM_INLINE PerRow<C> shifts_of(const Map& map, const Block<C>& b) {
  Vec<C> top{};
  if constexpr (Map::kShifts) top = max_rows(b, Scores<C>{-kInfinity<C>}, [&](Vec<C> v, int) { return map.size(v); });
  return per_row_of<C>([&](int r) { return map.usable(top[r]); });
}
template <class Map, class C>
MM_INLINE Vec<C> denominators(const Map& map, const PerRow<C>& shift, Vec<C> sums) {
  return sums + load(per_row_of<C>([&](int r) { return map.extra(shift.lane[r]); }).lane);
}
template <class C>
MM_INLINE Vec<C> inverses(Vec<C> x) {
  return keep(x != Vec<C>{}, C{1} / x);
}
template <class Map, class C>
MM_INLINE Vec<C> sums_of(const Map& map, const Block<C>& b, const PerRow<C>& at) {
  return sum_rows(b, Scores<C>{-kInfinity<C>}, [&](Vec<C> v, int r) { return map.numerator(v, at[r]); });
}
template <class C, template <class> class MapOf>
struct RatioForward {
  using Map = MapOf<C>;
  using Part = Total<C>;
  static constexpr bool kSplits = true;
  static constexpr bool kReadsScores = true;
  static constexpr bool kBlocks = true;
  static constexpr bool kReduces = false;
  Map map;

  explicit RatioForward(const RowsCall& call) : map(call.options) {}

  static int64_t room(int64_t n) { return n * static_cast<int64_t>(sizeof(C)) <= kRoomBytes ? n : 0; }

  MM_OUTLINE void row(const Reader<C>& x, const Reader<C>& grad, const Writer<C>& y, int64_t n) const {
    Part part{-kInfinity<C>, 0, 0};
    // A NaN must not reach entries that are not there: only the scores still tell them from weights that underflowed.
    const bool stored = room(n) > 0 && store_numerators(x, y.room, n, part);
    const C factor = stored ? factor_of(map, part) : C{0};
    if (!stored || factor != factor) return write(stored ? part : partial(x, grad, 0, n), x, grad, y, 0, n, n);
    const Vec<C> by = splat(factor);
    chunks(0, n, [&](int64_t k, int64_t count) {
      write_entries(y, k, count, y.room + k, [&](Vec<C> v) { return map.finish(v * by); });
    });
  }

  // Store the row's numerators relative to one shift; return false where no such shift is known before the visit.
  MM_OUTLINE bool store_numerators(const Reader<C>& x, C* numerators, int64_t n, Part& part) const {
    if (Map::kShifts && Map::kHeadroom == 0 && n > kChunk && !x.direct) return false;
    for (int64_t k = 0; k < n; k += kChunk) {
      const int64_t count = n - k < kChunk ? n - k : kChunk;
      const C* in = x.get(k, count);
      if (k == 0) part.shift = shift_of(map, in, Map::kHeadroom == 0 ? n : count < kGlance ? count : kGlance);
      const Vec<C> at = splat(map.usable(part.shift));
      C top;
      part.sum += map_sum_max(in, numerators + k, count, top, [&](Vec<C> v) { return map.numerator(v, at); });
      if (Map::kHeadroom > 0 && !holds(map, part.shift, top)) return false;
    }
    return true;
  }

  // With headroom a row's first entry serves as its shift: finding the maximum costs a third of a row of 16.
  MM_OUTLINE void block(const Block<C> b) const {
    if constexpr (Map::kHeadroom > 0) {
      const PerRow<C> first = per_row_of<C>([&](int r) { return map.usable(b.row(r).x[0]); });
      Vec<C> top = splat(-kInfinity<C>);
      const Vec<C> sums = store_numerators(b, first, [&](Vec<C> v, int r) { top = max(v - first[r], top); });
      if (reduce_max(top) <= Map::kHeadroom && !has_nan(sums)) return divide(b, first, sums);
    }
    const PerRow<C> at = shifts_of(map, b);
    divide(b, at, store_numerators(b, at, [](Vec<C>, int) {}));
  }

  template <class See>
  MM_MEMBER Vec<C> store_numerators(const Block<C>& b, const PerRow<C>& at, const See& see) const {
    return sum_rows(b, Scores<C>{-kInfinity<C>},
                    [&](Vec<C> v, int r) {
                      see(v, r);
                      return map.numerator(v, at[r]);
                    },
                    [](const Row<C>& row, int64_t i, Vec<C> w) { store(row.room + i, w); });
  }

  MM_MEMBER void divide(const Block<C>& b, const PerRow<C>& at, Vec<C> sums) const {
    const Vec<C> factors = inverses<C>(denominators(map, at, sums));
    const PerRow<C> by = per_row<C>(factors);
    if (has_nan(factors)) {
      return write_rows(b, Scores<C>{-kInfinity<C>}, [&](Vec<C> v, int r) {
        return keep(v != -kInfinity<C>, map.finish(map.numerator(v, at[r]) * by[r]));
      });
    }
    write_rows(b, [](const Row<C>& row, int64_t i, auto) { return load(row.room + i); },
               [&](Vec<C> w, int r) { return map.finish(w * by[r]); });
  }

  MM_OUTLINE Part partial(const Reader<C>& x, const Reader<C>&, int64_t first, int64_t last) const {
    return total_of(map, x, first, last);
  }
  Part merge(Part a, Part b) const { return merge_totals(map, a, b); }

  MM_OUTLINE void write(Part part, const Reader<C>& x, const Reader<C>&, const Writer<C>& y, int64_t first, int64_t last,
             int64_t) const {
    const Vec<C> at = splat(map.usable(part.shift)), by = splat(factor_of(map, part));
    const auto weight = [&](Vec<C> v) { return keep(v != -kInfinity<C>, map.finish(map.numerator(v, at) * by)); };
    chunks(first, last, [&](int64_t k, int64_t count) { write_entries(y, k, count, x.get(k, count), weight); });
  }
};

}  // namespace manymax::MANYMAX_ISA
