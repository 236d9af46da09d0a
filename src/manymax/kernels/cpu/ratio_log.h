// Logarithms of ratio maps. Beside the rest a map has
//   Vec<C> log_numerator(Vec<C> x, Vec<C> shift) const;  // -inf at x = -inf
//   Vec<C> log_slope(Vec<C> x) const;                    // derivative of log g
#pragma once

#include "ratio_backward.h"

namespace manymax::MANYMAX_ISA {

template <class C, template <class> class MapOf>
struct LogForward : RatioForward<C, MapOf> {
  using Base = RatioForward<C, MapOf>;
  using Map = MapOf<C>;
  using Part = typename Base::Part;
  using Base::Base;
  using Base::map;

  struct Finish {
    const Map* map;
    Vec<C> at, less;
    Finish(const LogForward& kernel, Part part) : map(&kernel.map), at(splat(kernel.map.usable(part.shift))) {
      const C total = denominator(kernel.map, part);
      less = splat(total == 0 ? C{0} : scalar_log(total));
    }
    bool knows() const { return true; }
    MM_MEMBER Vec<C> operator()(Vec<C> x) const { return logarithm(*map, x, at, less); }
  };
  static constexpr bool kStores = false;

  static int64_t room(int64_t) { return 0; }

  static MM_MEMBER Vec<C> logarithm(const Map& map, Vec<C> x, Vec<C> at, Vec<C> less) {
    return x == -kInfinity<C> ? x : map.log_numerator(x, at) - less;
  }
  bool read(const Reader<C>& x, C*, int64_t n, Part& part) const {
    part = total_of(map, x, 0, n);
    return true;
  }
  MM_OUTLINE void row(const Reader<C>& x, const Reader<C>& grad, const Writer<C>& y, int64_t n) const {
    write(this->partial(x, grad, 0, n), x, grad, y, 0, n, n);
  }
  MM_MEMBER void block(const Block<C>& b) const {
    PerRow<C> at;
    const PerRow<C> less = per_row<C>(logs_of<C>(totals_of(map, b, at, Sums<Map, C>{map, b})));
    write_rows(b, Scores<C>{C{0}}, [&](Vec<C> v, int r) { return logarithm(map, v, at[r], less[r]); });
  }
  MM_OUTLINE void write(Part part, const Reader<C>& x, const Reader<C>&, const Writer<C>& y,
                        int64_t first, int64_t last, int64_t) const {
    const Finish finish(*this, part);
    chunks(first, last, [&](int64_t k, int64_t count) { write_entries(y, k, count, x.get(k, count), finish); });
  }
};

// From the scores: (log g)'(x) grad - g'(x) / S (sum of grad).
template <class C, template <class> class MapOf>
struct LogBackward : RatioBackward<C, MapOf> {
  using Base = RatioBackward<C, MapOf>;
  using Map = MapOf<C>;
  using Part = typename Base::Part;
  using Base::Base;
  using Base::map;

  static MM_MEMBER Vec<C> visible(Vec<C> x, Vec<C> g) { return keep(x != -kInfinity<C>, g); }
  MM_MEMBER Vec<C> gradient(Vec<C> x, Vec<C> g, Vec<C> at, Vec<C> by) const {
    return visible(x, map.log_slope(x) * g - map.slope(x, at) * by);
  }

  MM_OUTLINE void row(const Reader<C>& x, const Reader<C>& grad, const Writer<C>& y, int64_t n) const {
    write(partial(x, grad, 0, n), x, grad, y, 0, n, n);
  }
  MM_MEMBER void block(const Block<C>& b) const {
    PerRow<C> at;
    const Vec<C> factors = inverses<C>(totals_of(map, b, at, Sums<Map, C>{map, b}));
    const PerRow<C> by = per_row<C>(factors * sum_products(b, -kInfinity<C>, visible));
    write_rows(b, ScoresAndGrads<C>{-kInfinity<C>},
               [&](Two<C> in, int r) { return gradient(in.x, in.g, at[r], by[r]); });
  }
  // `dot` is the plain sum of the gradient: it does not depend on the shift.
  MM_OUTLINE Part partial(const Reader<C>& x, const Reader<C>& grad, int64_t first, int64_t last) const {
    Part total{-kInfinity<C>, 0, 0};
    C dot = 0;
    chunks(first, last, [&](int64_t k, int64_t count) {
      const C* in = x.get(k, count);
      dot += sum_over(in, grad.get(k, count), count, -kInfinity<C>, visible);
      add_chunk(map, in, count, total);
    });
    total.dot = dot;
    return total;
  }
  Part merge(Part a, Part b) const {
    Part both = merge_totals(map, a, b);
    both.dot = a.dot + b.dot;
    return both;
  }
  MM_OUTLINE void write(Part part, const Reader<C>& x, const Reader<C>& grad, const Writer<C>& y,
                        int64_t first, int64_t last, int64_t) const {
    const Vec<C> at = splat(map.usable(part.shift)), by = splat(factor_of(map, part) * part.dot);
    chunks(first, last, [&](int64_t k, int64_t count) {
      write_entries(y, k, count, x.get(k, count), grad.get(k, count),
                    [&](Vec<C> v, Vec<C> g) { return gradient(v, g, at, by); });
    });
  }
};

// From log-weights, of log_softmax: grad - exp(log w) (sum of grad).
template <class C>
struct LogExpBackward : KernelTraits {
  using Part = C;
  static constexpr bool kReadsScores = false;
  static constexpr bool kBlocks = true;

  explicit LogExpBackward(const RowsCall&) {}

  static MM_MEMBER Vec<C> visible(Vec<C> logs, Vec<C> g) { return keep(logs != -kInfinity<C>, g); }
  static MM_MEMBER Vec<C> gradient(Vec<C> logs, Vec<C> g, Vec<C> sum) {
    return visible(logs, g - exp<C>(logs) * sum);
  }

  // Most rows show all their entries: out of cache the gradient alone is summed, which reads a fifth less in all, and the
  // row is written again if it hid something.
  MM_OUTLINE void row(const Reader<C>& logs, const Reader<C>& grad, const Writer<C>& y, int64_t n) const {
    const bool overwrites = logs.source.data == y.data || grad.source.data == y.data;
    if (n > kChunk && !overwrites) {
      C sum = 0;
      chunks(0, n, [&](int64_t k, int64_t count) {
        sum += sum_over(grad.get(k, count), count, C{0}, [](Vec<C> g) { return g; });
      });
      if (!visit(sum, logs, grad, y, 0, n)) return;
    }
    write(partial(logs, grad, 0, n), logs, grad, y, 0, n, n);
  }
  MM_MEMBER void block(const Block<C>& b) const {
    const PerRow<C> sum = per_row<C>(sum_products(b, -kInfinity<C>, visible));
    write_rows(b, ScoresAndGrads<C>{-kInfinity<C>}, [&](Two<C> in, int r) { return gradient(in.x, in.g, sum[r]); });
  }
  MM_OUTLINE Part partial(const Reader<C>& logs, const Reader<C>& grad, int64_t first, int64_t last) const {
    C sum = 0;
    chunks(first, last, [&](int64_t k, int64_t count) {
      sum += sum_over(logs.get(k, count), grad.get(k, count), count, -kInfinity<C>, visible);
    });
    return sum;
  }
  Part merge(Part a, Part b) const { return a + b; }
  MM_OUTLINE void write(Part part, const Reader<C>& logs, const Reader<C>& grad, const Writer<C>& y, int64_t first,
                        int64_t last, int64_t) const {
    visit(part, logs, grad, y, first, last);
  }
  // Write the gradients; return whether an entry was hidden.
  MM_OUTLINE bool visit(Part part, const Reader<C>& logs, const Reader<C>& grad, const Writer<C>& y, int64_t first,
                        int64_t last) const {
    const Vec<C> sum = splat(part);
    Vec<C> hidden{};
    chunks(first, last, [&](int64_t k, int64_t count) {
      write_entries(y, k, count, logs.get(k, count), grad.get(k, count), [&](Vec<C> v, Vec<C> g) {
        hidden = v == -kInfinity<C> ? splat(C{1}) : hidden;
        return gradient(v, g, sum);
      });
    });
    return reduce_max(hidden) > 0;
  }
};

}  // namespace manymax::MANYMAX_ISA
