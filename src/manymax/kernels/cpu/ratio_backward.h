// Gradients of ratio maps.
#pragma once

#include "ratio.h"

namespace manymax::MANYMAX_ISA {

// From the weights, for maps whose numerator is its own derivative: w (grad - sum of w grad).
template <class C>
struct ExpBackward : KernelTraits {
  using Part = C;
  static constexpr bool kReadsScores = false;
  static constexpr bool kBlocks = true;

  explicit ExpBackward(const RowsCall&) {}

  // A weight of 0 takes no part, whatever its gradient holds.
  static MM_MEMBER Vec<C> product(Vec<C> w, Vec<C> g) { return keep(w != Vec<C>{}, w * g); }

  MM_OUTLINE void row(const Reader<C>& w, const Reader<C>& grad, const Writer<C>& y, int64_t n) const {
    if (n > kChunk) return write(partial(w, grad, 0, n), w, grad, y, 0, n, n);
    const C* in = w.get(0, n);
    const C* g = grad.get(0, n);
    const Vec<C> mean = splat(sum_over(in, g, n, C{0}, product));
    write_entries(y, 0, n, in, g, [&](Vec<C> v, Vec<C> u) { return product(v, u - mean); });
  }
  MM_MEMBER void block(const Block<C>& b) const {
    const PerRow<C> mean = per_row<C>(sum_products(b, C{0}, product));
    write_rows(b, ScoresAndGrads<C>{C{0}}, [&](Two<C> in, int r) { return product(in.x, in.g - mean[r]); });
  }
  MM_OUTLINE Part partial(const Reader<C>& w, const Reader<C>& grad, int64_t first, int64_t last) const {
    C dot = 0;
    chunks(first, last, [&](int64_t k, int64_t count) {
      dot += sum_over(w.get(k, count), grad.get(k, count), count, C{0}, product);
    });
    return dot;
  }
  Part merge(Part a, Part b) const { return a + b; }
  MM_OUTLINE void write(Part dot, const Reader<C>& w, const Reader<C>& grad, const Writer<C>& y,
                        int64_t first, int64_t last, int64_t) const {
    const Vec<C> mean = splat(dot);
    chunks(first, last, [&](int64_t k, int64_t count) {
      write_entries(y, k, count, w.get(k, count), grad.get(k, count),
                    [&](Vec<C> v, Vec<C> g) { return product(v, g - mean); });
    });
  }
};

// From the scores: g'(x) / S (grad - sum of g grad / S), with S the row's total.
template <class C, template <class> class MapOf>
struct RatioBackward : KernelTraits {
  using Map = MapOf<C>;
  using Part = Total<C>;
  static constexpr bool kBlocks = true;
  Map map;

  explicit RatioBackward(const RowsCall& call) : map(call.options) {}

  MM_OUTLINE void row(const Reader<C>& x, const Reader<C>& grad, const Writer<C>& y, int64_t n) const {
    write(partial(x, grad, 0, n), x, grad, y, 0, n, n);
  }

  static MM_MEMBER Vec<C> product(Vec<C> weight, Vec<C> g) { return keep(weight != Vec<C>{}, weight * g); }
  MM_MEMBER Vec<C> gradient(Vec<C> x, Vec<C> g, Vec<C> at, Vec<C> by, Vec<C> mean) const {
    return keep(x != -kInfinity<C>, map.slope(x, at) * by * (g - mean));
  }

  MM_MEMBER void block(const Block<C>& b) const {
    PerRow<C> at;
    const Vec<C> factors = inverses<C>(totals_of(map, b, at, StoredSums<Map, C>{map, b}));
    const auto weighed = [](const Row<C>& row, int64_t i, auto span) {
      return Two<C>{load(row.room + i), load(row.grad + i, span, C{0})};
    };
    const Vec<C> dots = sum_rows(b, weighed, [](Two<C> in, int) { return product(in.x, in.g); });
    const PerRow<C> by = per_row<C>(factors), mean = per_row<C>(dots * factors);
    write_rows(b, ScoresAndGrads<C>{-kInfinity<C>},
               [&](Two<C> in, int r) { return gradient(in.x, in.g, at[r], by[r], mean[r]); });
  }

  MM_OUTLINE Part partial(const Reader<C>& x, const Reader<C>& grad, int64_t first, int64_t last) const {
    Part total{-kInfinity<C>, 0, 0};
    chunks(first, last, [&](int64_t k, int64_t count) {
      const C* in = x.get(k, count);
      const C* g = grad.get(k, count);
      count_chunk(map, in, count, total);
      total = raise(map, total, shift_of(map, in, count));
      const Vec<C> at = splat(map.usable(total.shift));
      Vec<C> sum[kUnroll] = {}, dot[kUnroll] = {};
      const auto get = [&](int64_t i, auto span) {
        return Two<C>{load(in + i, span, -kInfinity<C>), load(g + i, span, C{0})};
      };
      const auto work = [&](Two<C> v, int u) {
        const Vec<C> weight = map.numerator(v.x, at);
        sum[u] += weight;
        dot[u] += product(weight, v.g);
        return weight;
      };
      vectors<C>(count, get, work, Nowhere{});
      total.sum += sum_of<C>(sum);
      total.dot += sum_of<C>(dot);
    });
    return total;
  }
  Part merge(Part a, Part b) const { return merge_totals(map, a, b); }

  MM_OUTLINE void write(Part part, const Reader<C>& x, const Reader<C>& grad, const Writer<C>& y,
                        int64_t first, int64_t last, int64_t) const {
    const C factor = factor_of(map, part);
    const Vec<C> at = splat(map.usable(part.shift)), by = splat(factor), mean = splat(part.dot * factor);
    chunks(first, last, [&](int64_t k, int64_t count) {
      write_entries(y, k, count, x.get(k, count), grad.get(k, count),
                    [&](Vec<C> v, Vec<C> g) { return gradient(v, g, at, by, mean); });
    });
  }
};

}  // namespace manymax::MANYMAX_ISA
