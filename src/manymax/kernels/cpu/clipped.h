// Softmax stretched and clipped, forwards for RatioForward, and backwards.
#pragma once

#include "ratio.h"

namespace manymax::MANYMAX_ISA {

// softmax stretched to [gamma, zeta] and cut to [0, 1]. The data come second: a NaN stays.
template <class C>
struct ClippedSoftmax : Softmax<C> {
  C span, gamma;
  explicit ClippedSoftmax(const double* options)
      : Softmax<C>(options), span(static_cast<C>(options[0] - options[1])), gamma(static_cast<C>(options[1])) {}
  Vec<C> stretch(Vec<C> w) const { return w * span + gamma; }
  Vec<C> finish(Vec<C> w) const { return min(splat(C{1}), max(Vec<C>{}, stretch(w))); }
  // What reaches softmax's weight of a gradient; an end of [0, 1] is inside.
  Vec<C> pass(Vec<C> w, Vec<C> g) const {
    const Vec<C> stretched = stretch(w);
    return keep(~((stretched < Vec<C>{}) | (stretched > splat(C{1}))), g * span);
  }
};

// With h = pass(w, grad), where w is softmax's weight: w (h - sum of w h). Which gradients pass is known only after the row's
// total: three visits.
template <class C>
struct ClippedBackward : KernelTraits {
  using Part = Total<C>;
  static constexpr bool kSplits = false;
  ClippedSoftmax<C> map;

  explicit ClippedBackward(const RowsCall& call) : map(call.options) {}

  MM_OUTLINE void row(const Reader<C>& x, const Reader<C>& grad, const Writer<C>& y, int64_t n) const {
    const Part total = total_of(map, x, 0, n);
    const Vec<C> at = splat(map.usable(total.shift)), by = splat(factor_of(map, total));
    const auto product = [&](Vec<C> v, Vec<C> g, Vec<C> mean) {
      const Vec<C> weight = map.numerator(v, at) * by;
      return keep((v != -kInfinity<C>) & (weight != Vec<C>{}), weight * (map.pass(weight, g) - mean));
    };
    C dot = 0;
    chunks(0, n, [&](int64_t k, int64_t count) {
      dot += sum_over(x.get(k, count), grad.get(k, count), count, -kInfinity<C>,
                      [&](Vec<C> v, Vec<C> g) { return product(v, g, Vec<C>{}); });
    });
    const Vec<C> mean = splat(dot);
    chunks(0, n, [&](int64_t k, int64_t count) {
      write_entries(y, k, count, x.get(k, count), grad.get(k, count),
                    [&](Vec<C> v, Vec<C> g) { return product(v, g, mean); });
    });
  }
};

}  // namespace manymax::MANYMAX_ISA
