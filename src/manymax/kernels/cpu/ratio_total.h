// log(sum of g): one number a row. Beside the rest a map has
//   C log_scale(C shift) const;  // log of what the shift divides g by
#pragma once

#include "ratio_log.h"

namespace manymax::MANYMAX_ISA {

template <class C, template <class> class MapOf>
struct TotalForward : RatioForward<C, MapOf> {
  using Base = RatioForward<C, MapOf>;
  using Part = typename Base::Part;
  using Base::Base;
  using Base::map;
  static constexpr bool kReduces = true;
  static constexpr bool kChains = false;

  static int64_t room(int64_t) { return 0; }

  MM_OUTLINE void row(const Reader<C>& x, const Reader<C>& grad, const Writer<C>& y, int64_t n) const {
    finish(this->partial(x, grad, 0, n), x, y, n);
  }
  MM_MEMBER void block(const Block<C>& b) const {
    PerRow<C> at;
    const Vec<C> sums = totals_of(map, b, at, Sums<MapOf<C>, C>{map, b});
    const PerRow<C> scale = per_row_of<C>([&](int r) { return map.log_scale(at.lane[r]); });
    Vec<C> results = sums == Vec<C>{} ? splat(-kInfinity<C>) : logs_of<C>(sums) + load(scale.lane);
    if (has_nan(results)) {
      for (int r = 0; r < kLanes<C>; ++r) {
        const Reader<C> x{b.row(r).x};
        if (at.lane[r] == kInfinity<C>) results[r] = infinite_or_nan(x, b.n);
      }
    }
    write_results(b, results);
  }
  MM_OUTLINE void write(Part part, const Reader<C>& x, const Reader<C>&, const Writer<C>& y, int64_t first, int64_t,
             int64_t n) const {
    if (first == 0) finish(part, x, y, n);
  }
  MM_OUTLINE void finish(Part part, const Reader<C>& x, const Writer<C>& y, int64_t n) const {
    C result = part.sum == 0 ? -kInfinity<C> : scalar_log(part.sum) + map.log_scale(map.usable(part.shift));
    if (part.shift == kInfinity<C>) result = infinite_or_nan(x, n);
    *y.begin(0) = result;
    y.end(0, 1);
  }
  // +inf gives +inf unless a NaN is visible, as in torch.logsumexp.
  static C infinite_or_nan(const Reader<C>& x, int64_t n) {
    C nans = 0;
    chunks(0, n, [&](int64_t k, int64_t count) {
      nans += sum_over(x.get(k, count), count, C{0}, [](Vec<C> v) { return keep(v != v, splat(C{1})); });
    });
    return nans != 0 ? static_cast<C>(__builtin_nan("")) : kInfinity<C>;
  }
};

// g'(x) / S times the row's one gradient.
template <class C, template <class> class MapOf>
struct TotalBackward : RatioForward<C, MapOf> {
  using Base = RatioForward<C, MapOf>;
  using Part = typename Base::Part;
  using Base::Base;
  using Base::map;
  static constexpr bool kBlocks = false;
  static constexpr bool kChains = false;

  static int64_t room(int64_t) { return 0; }

  MM_OUTLINE void row(const Reader<C>& x, const Reader<C>& grad, const Writer<C>& y, int64_t n) const {
    write(this->partial(x, grad, 0, n), x, grad, y, 0, n, n);
  }
  MM_OUTLINE void write(Part part, const Reader<C>& x, const Reader<C>& grad, const Writer<C>& y,
                        int64_t first, int64_t last, int64_t) const {
    const C scale = factor_of(map, part) * grad.get(0, 1)[0];
    const Vec<C> at = splat(map.usable(part.shift)), by = splat(scale);
    chunks(first, last, [&](int64_t k, int64_t count) {
      write_entries(y, k, count, x.get(k, count),
                    [&](Vec<C> v) { return keep(v != -kInfinity<C>, map.slope(v, at) * by); });
    });
  }
};

}  // namespace manymax::MANYMAX_ISA
