// Ratio maps on rows: w = g(x) / (extra + sum of g), g relative to a shift of the row; maps_ratio.h has the formulas.
//
// A row that fits into the second-level cache is read once: numerators go to a room of their own and are divided on the
// way out. A longer one is visited twice: `partial` sums numerators and `write` computes them again, which costs less than
// writing and reading them.
#pragma once

#include "chain.h"
#include "run.h"

namespace manymax::MANYMAX_ISA {

// Rows up to here keep their numerators: those of two rows, one read and one written, take half of a second-level cache of 1 MB.
inline constexpr int64_t kRoomBytes = 1 << 18;

template <class C, template <class> class MapOf>
struct RatioForward : KernelTraits {
  using Map = MapOf<C>;
  using Part = Total<C>;
  static constexpr bool kBlocks = true;
  static constexpr bool kChains = true;
  Map map;

  struct Finish {
    const Map* map;
    Vec<C> by;
    Finish(const RatioForward& kernel, Part part) : map(&kernel.map), by(splat(factor_of(kernel.map, part))) {}
    // A NaN must not reach entries that are not there: only the scores still tell them from weights that underflowed.
    bool knows() const { return by[0] == by[0]; }
    MM_MEMBER Vec<C> operator()(Vec<C> w) const { return map->finish(w * by); }
  };
  static constexpr bool kStores = true;
  static bool chains(int64_t n) { return n * static_cast<int64_t>(sizeof(C)) <= kRoomBytes; }

  explicit RatioForward(const RowsCall& call) : map(call.options) {}

  static int64_t room(int64_t n) { return chains(n) ? 2 * ((n + kLanes<C> - 1) / kLanes<C> * kLanes<C>) : 0; }

  MM_OUTLINE void row(const Reader<C>& x, const Reader<C>& grad, const Writer<C>& y, int64_t n) const {
    Part part{-kInfinity<C>, 0, 0};
    const bool stored = chains(n) && read(x, y.room, n, part);
    const Finish finish(*this, part);
    if (!stored || !finish.knows()) return write(stored ? part : partial(x, grad, 0, n), x, grad, y, 0, n, n);
    chunks(0, n, [&](int64_t k, int64_t count) { write_entries(y, k, count, y.room + k, finish); });
  }

  // Store the row's numerators relative to one shift; return false where no such shift is known before the visit.
  MM_OUTLINE bool read(const Reader<C>& x, C* numerators, int64_t n, Part& part) const {
    part = {-kInfinity<C>, 0, 0};
    if (Map::kShifts && Map::kHeadroom == 0 && n > kChunk && !x.direct) return false;
    for (int64_t k = 0; k < n; k += kChunk) {
      const int64_t count = n - k < kChunk ? n - k : kChunk;
      const C* in = x.get(k, count);
      count_chunk(map, in, count, part);
      if (k == 0) part.shift = shift_of(map, in, Map::kHeadroom == 0 ? n : count < kGlance ? count : kGlance);
      const Vec<C> at = splat(map.usable(part.shift));
      C top;
      part.sum += map_sum_max(in, numerators + k, count, top, [&](Vec<C> v) { return map.numerator(v, at); });
      if (Map::kHeadroom > 0 && !holds(map, part.shift, top)) return false;
    }
    return true;
  }

  MM_MEMBER void block(const Block<C>& b) const {
    PerRow<C> at;
    const Vec<C> factors = inverses<C>(totals_of(map, b, at, StoredSums<Map, C>{map, b}));
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

  MM_OUTLINE void write(Part part, const Reader<C>& x, const Reader<C>&, const Writer<C>& y,
                        int64_t first, int64_t last, int64_t) const {
    const Vec<C> at = splat(map.usable(part.shift)), by = splat(factor_of(map, part));
    const auto weight = [&](Vec<C> v) { return keep(v != -kInfinity<C>, map.finish(map.numerator(v, at) * by)); };
    chunks(first, last, [&](int64_t k, int64_t count) { write_entries(y, k, count, x.get(k, count), weight); });
  }
};

}  // namespace manymax::MANYMAX_ISA
