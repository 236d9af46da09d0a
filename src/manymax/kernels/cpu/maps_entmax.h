// Entmax for any alpha above 1: weights (1 + e (x - level))^(1 / e) above the cut, with e = alpha - 1, scores relative to the
// largest, and the level at which they sum to 1, which lies in [0, (1 - n^-e) / e] and tends to the log-sum-exp as e does to 0.
//
// For e <= 1 the sum to the power of e is convex and nearly straight in the level: Newton's method from the left, which never
// overshoots. For e > 1 slopes are vertical where a weight starts, and the bracket is halved.
#pragma once

#include "log.h"
#include "maps_threshold.h"

namespace manymax::MANYMAX_ISA {

MM_INLINE float scalar_expm1(float x) { return __builtin_expm1f(x); }
MM_INLINE double scalar_expm1(double x) { return __builtin_expm1(x); }

// What a row's weights are computed from.
template <class C>
struct Level {
  C low, high;  // the bracket; Newton's method leaves one level
  C part;       // how many slopes to take off the weights at `low`, or the share that those have of the mix of both ends
};

template <class C>
class Entmax {
 public:
  explicit Entmax(const double* options)
      : e_(static_cast<C>(options[0] - 1)), inverse_(static_cast<C>(1 / (options[0] - 1))) {}
  C reach() const { return inverse_; }  // entries further below the largest weigh nothing

  // x relative to the largest.
  MM_MEMBER Vec<C> weight(Vec<C> x, const Level<C>& at) const {
    const Two<C> low = at_level(x, splat(at.low));
    if (e_ <= 1) return max(Vec<C>{}, low.x - low.g * at.part);
    const Vec<C> least = at_level(x, splat(at.high)).x;
    return least + (low.x - least) * at.part;
  }

  // From the candidates, which are used up; they are made relative to the largest on the way.
  Level<C> search(C* kept, int64_t count, C largest) const {
    constexpr bool kShort = sizeof(C) == 4;
    constexpr C kTolerance = static_cast<C>(kShort ? 1e-6 : 1e-15), kSlack = static_cast<C>(kShort ? 5e-7 : 9e-16);
    if (count == 0) return {0, 0, 0};
    map_over(kept, kept, count, [&](Vec<C> v) { return v - largest; });
    // Equal scores have their cut at the upper bound, which is rounded.
    C low = 0, high = -scalar_expm1(-e_ * scalar_log(static_cast<C>(count))) / e_ * (1 + kSlack), level = 0;
    const bool convex = e_ <= 1;
    const int steps = convex ? 12 : kShort ? 26 : 56;  // as in the plain form
    Sums sums{};
    for (int step = 0; step < steps; ++step) {
      count = append_above(kept, kept, count, low - inverse_);
      sums = sums_at(kept, count, level);
      if (sums.total >= 1) low = level;
      if (sums.total <= 1) high = level;
      if (convex && sums.total - 1 <= kTolerance && 1 - sums.total <= kTolerance) break;
      const C newton = convex ? level - sums.total * scalar_expm1(-e_ * scalar_log(sums.total)) / e_ / sums.slopes : -1;
      level = newton >= low && newton <= high ? newton : (low + high) / 2;
    }
    if (convex) {
      sums = sums_at(kept, count, level);
      return {level, level, (sums.total - 1) / sums.slopes};
    }
    const C most = sums_at(kept, count, low).total, least = sums_at(kept, count, high).total;
    const C share = most == least ? C{0} : (1 - least) / (most - least);
    return {low, high, share < 0 ? C{0} : share > 1 ? C{1} : share};
  }

 private:
  struct Sums {
    C total, slopes;
  };
  C e_, inverse_;

  // The weight and its slope.
  MM_MEMBER Two<C> at_level(Vec<C> x, Vec<C> level) const {
    const Vec<C> above = (x - level) * e_;
    const Mask<C> in = above > splat(C{-1});
    const Vec<C> weight = keep(in, exp_nonpositive<C>(log1p<C>(above) * inverse_));
    return {weight, keep(in, weight / (C{1} + above))};
  }
  MM_OUTLINE Sums sums_at(const C* x, int64_t n, C level) const {
    Vec<C> totals[kUnroll] = {}, slopes[kUnroll] = {};
    const auto work = [&](Vec<C> v, int u) {
      const Two<C> found = at_level(v, splat(level));
      totals[u] += found.x, slopes[u] += found.g;
      return found.x;
    };
    vectors<C>(n, [&](int64_t i, auto span) { return load(x + i, span, -kInfinity<C>); }, work, Nowhere{});
    return {sum_of<C>(totals), sum_of<C>(slopes)};
  }
};

}  // namespace manymax::MANYMAX_ISA
