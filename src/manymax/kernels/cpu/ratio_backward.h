// Gradients of ratio maps and of their logarithms.
#pragma once

#include "ratio.h"

namespace manymax::MANYMAX_ISA {

// From the weights, for maps whose numerator is its own derivative: w (grad - sum of w grad).
template <class C>
struct ExpBackward {
  using Part = C;
  static constexpr bool kScratch = false;
  static constexpr bool kSplits = true;
  static constexpr bool kReadsScores = false;

  explicit ExpBackward(const RowsCall&) {}

  // A weight of 0 takes no part, whatever its gradient holds.
  static MM_MEMBER Vec<C> product(Vec<C> w, Vec<C> g) { return keep(w != Vec<C>{}, w * g); }

  void row(const Reader<C>& w, const Reader<C>& grad, const Writer<C>& y, int64_t n) const {
    if (n > kChunk) return write(partial(w, grad, 0, n), w, grad, y, 0, n, n);
    const C* in = w.get(0, n);
    const C* g = grad.get(0, n);
    const Vec<C> mean = splat(sum_over(in, g, n, C{0}, product));
    map_over(in, g, y.begin(0), n, [&](Vec<C> v, Vec<C> u) { return product(v, u - mean); });
    y.end(0, n);
  }
  Part partial(const Reader<C>& w, const Reader<C>& grad, int64_t first, int64_t last) const {
    C dot = 0;
    chunks(first, last, [&](int64_t k, int64_t count) {
      dot += sum_over(w.get(k, count), grad.get(k, count), count, C{0}, product);
    });
    return dot;
  }
  Part merge(Part a, Part b) const { return a + b; }
  void write(Part dot, const Reader<C>& w, const Reader<C>& grad, const Writer<C>& y, int64_t first, int64_t last,
             int64_t) const {
    const Vec<C> mean = splat(dot);
    chunks(first, last, [&](int64_t k, int64_t count) {
      map_over(w.get(k, count), grad.get(k, count), y.begin(k), count,
               [&](Vec<C> v, Vec<C> g) { return product(v, g - mean); });
      y.end(k, count);
    });
  }
};

// From the scores: g'(x) / S (grad - sum of g grad / S), with S the row's total.
template <class C, template <class> class MapOf>
struct RatioBackward {
  using Map = MapOf<C>;
  using Part = Total<C>;
  static constexpr bool kScratch = false;
  static constexpr bool kSplits = true;
  static constexpr bool kReadsScores = true;
  Map map;

  explicit RatioBackward(const RowsCall& call) : map(call.options) {}

  void row(const Reader<C>& x, const Reader<C>& grad, const Writer<C>& y, int64_t n) const {
    write(partial(x, grad, 0, n), x, grad, y, 0, n, n);
  }

  Part partial(const Reader<C>& x, const Reader<C>& grad, int64_t first, int64_t last) const {
    Part total{-kInfinity<C>, 0, 0};
    chunks(first, last, [&](int64_t k, int64_t count) {
      const C* in = x.get(k, count);
      const C* g = grad.get(k, count);
      total = raise(map, total, shift_of(map, in, count));
      const Vec<C> at = splat(map.usable(total.shift));
      total.sum += sum_over(in, count, -kInfinity<C>, [&](Vec<C> v) { return map.numerator(v, at); });
      total.dot += sum_over(in, g, count, -kInfinity<C>, [&](Vec<C> v, Vec<C> u) {
        const Vec<C> weight = map.numerator(v, at);
        return keep(weight != Vec<C>{}, weight * u);
      });
    });
    return total;
  }
  Part merge(Part a, Part b) const { return merge_totals(map, a, b); }

  void write(Part part, const Reader<C>& x, const Reader<C>& grad, const Writer<C>& y, int64_t first, int64_t last,
             int64_t) const {
    const C factor = factor_of(map, part);
    const Vec<C> at = splat(map.usable(part.shift)), by = splat(factor), mean = splat(part.dot * factor);
    chunks(first, last, [&](int64_t k, int64_t count) {
      map_over(x.get(k, count), grad.get(k, count), y.begin(k), count, [&](Vec<C> v, Vec<C> g) {
        return keep(v != -kInfinity<C>, map.slope(v, at) * by * (g - mean));
      });
      y.end(k, count);
    });
  }
};

}  // namespace manymax::MANYMAX_ISA
