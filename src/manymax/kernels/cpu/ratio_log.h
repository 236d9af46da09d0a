// Logarithms of ratio maps, and of their totals. Beside the rest a map has
//   Vec<C> log_numerator(Vec<C> x, Vec<C> shift) const;  // -inf at x = -inf
//   Vec<C> log_slope(Vec<C> x) const;                    // derivative of log g
//   C log_scale(C shift) const;                          // log of what the shift divides g by
#pragma once

#include "ratio_backward.h"

namespace manymax::MANYMAX_ISA {

template <class C, template <class> class MapOf>
struct LogForward : RatioForward<C, MapOf> {
  using Base = RatioForward<C, MapOf>;
  using Part = typename Base::Part;
  using Base::Base;
  using Base::map;

  void row(const Reader<C>& x, const Reader<C>& grad, const Writer<C>& y, int64_t n) const {
    write(this->partial(x, grad, 0, n), x, grad, y, 0, n, n);
  }
  void write(Part part, const Reader<C>& x, const Reader<C>&, const Writer<C>& y, int64_t first, int64_t last,
             int64_t) const {
    const C total = part.sum + map.extra(map.usable(part.shift));
    const Vec<C> at = splat(map.usable(part.shift)), less = splat(total == 0 ? C{0} : scalar_log(total));
    chunks(first, last, [&](int64_t k, int64_t count) {
      map_over(x.get(k, count), y.begin(k), count, [&](Vec<C> v) {
        return v == -kInfinity<C> ? v : map.log_numerator(v, at) - less;
      });
      y.end(k, count);
    });
  }
};

// (log g)'(x) grad - g'(x) / S (sum of grad).
template <class C, template <class> class MapOf>
struct LogBackward : RatioBackward<C, MapOf> {
  using Base = RatioBackward<C, MapOf>;
  using Part = typename Base::Part;
  using Base::Base;
  using Base::map;

  void row(const Reader<C>& x, const Reader<C>& grad, const Writer<C>& y, int64_t n) const {
    write(partial(x, grad, 0, n), x, grad, y, 0, n, n);
  }
  // `dot` is the plain sum of the gradient: it does not depend on the shift.
  Part partial(const Reader<C>& x, const Reader<C>& grad, int64_t first, int64_t last) const {
    Part total{-kInfinity<C>, 0, 0};
    chunks(first, last, [&](int64_t k, int64_t count) {
      const Reader<C> one{x.get(k, count)};
      const C dot = sum_over(one.direct, grad.get(k, count), count, -kInfinity<C>,
                             [](Vec<C> v, Vec<C> u) { return keep(v != -kInfinity<C>, u); });
      total = merge(total, [&] {
        Part part = total_of(map, one, 0, count);
        part.dot = dot;
        return part;
      }());
    });
    return total;
  }
  Part merge(Part a, Part b) const {
    Part both = merge_totals(map, a, b);
    both.dot = a.dot + b.dot;
    return both;
  }
  void write(Part part, const Reader<C>& x, const Reader<C>& grad, const Writer<C>& y, int64_t first, int64_t last,
             int64_t) const {
    const Vec<C> at = splat(map.usable(part.shift)), by = splat(factor_of(map, part) * part.dot);
    chunks(first, last, [&](int64_t k, int64_t count) {
      map_over(x.get(k, count), grad.get(k, count), y.begin(k), count, [&](Vec<C> v, Vec<C> g) {
        return keep(v != -kInfinity<C>, map.log_slope(v) * g - map.slope(v, at) * by);
      });
      y.end(k, count);
    });
  }
};

// log(sum of g): one number a row. +inf gives +inf unless a NaN is visible, as in torch.logsumexp.
template <class C, template <class> class MapOf>
struct TotalForward : RatioForward<C, MapOf> {
  using Base = RatioForward<C, MapOf>;
  using Part = typename Base::Part;
  using Base::Base;
  using Base::map;

  void row(const Reader<C>& x, const Reader<C>& grad, const Writer<C>& y, int64_t n) const {
    finish(this->partial(x, grad, 0, n), x, y, n);
  }
  void write(Part part, const Reader<C>& x, const Reader<C>&, const Writer<C>& y, int64_t first, int64_t,
             int64_t n) const {
    if (first == 0) finish(part, x, y, n);
  }
  void finish(Part part, const Reader<C>& x, const Writer<C>& y, int64_t n) const {
    C result = part.sum == 0 ? -kInfinity<C> : scalar_log(part.sum) + map.log_scale(map.usable(part.shift));
    if (part.shift == kInfinity<C>) result = has_nan(x, n) ? static_cast<C>(__builtin_nan("")) : kInfinity<C>;
    *y.begin(0) = result;
    y.end(0, 1);
  }
  static bool has_nan(const Reader<C>& x, int64_t n) {
    C nans = 0;
    chunks(0, n, [&](int64_t k, int64_t count) {
      nans += sum_over(x.get(k, count), count, C{0}, [](Vec<C> v) { return keep(v != v, splat(C{1})); });
    });
    return nans != 0;
  }
};

// g'(x) / S times the row's one gradient.
template <class C, template <class> class MapOf>
struct TotalBackward : RatioForward<C, MapOf> {
  using Base = RatioForward<C, MapOf>;
  using Part = typename Base::Part;
  using Base::Base;
  using Base::map;

  void row(const Reader<C>& x, const Reader<C>& grad, const Writer<C>& y, int64_t n) const {
    write(this->partial(x, grad, 0, n), x, grad, y, 0, n, n);
  }
  void write(Part part, const Reader<C>& x, const Reader<C>& grad, const Writer<C>& y, int64_t first, int64_t last,
             int64_t) const {
    const C scale = factor_of(map, part) * grad.get(0, 1)[0];
    const Vec<C> at = splat(map.usable(part.shift)), by = splat(scale);
    chunks(first, last, [&](int64_t k, int64_t count) {
      map_over(x.get(k, count), y.begin(k), count, [&](Vec<C> v) { return keep(v != -kInfinity<C>, map.slope(v, at) * by); });
      y.end(k, count);
    });
  }
};

}  // namespace manymax::MANYMAX_ISA
