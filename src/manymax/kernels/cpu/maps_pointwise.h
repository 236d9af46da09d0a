// The formulas of pointwise maps, over vectors. A map has: counts, whether it uses n; at(n), what its formulas take in its
// place; weight and slope.
#pragma once

#include "log.h"
#include "loops.h"

namespace manymax::MANYMAX_ISA {

// 1 / (1 + exp(-(x + b))), b = -log n unless given.
template <class C>
struct Sigmoid {
  C bias;
  explicit Sigmoid(const double* options) : bias(static_cast<C>(options[0])) {}
  bool counts() const { return bias != bias; }
  C at(C n) const { return counts() ? -scalar_log(n) : bias; }
  Vec<C> weight(Vec<C> x, Vec<C> shift) const { return sigmoid<C>(x + shift); }
  Vec<C> slope(Vec<C> x, Vec<C> shift) const {
    const Vec<C> w = weight(x, shift);
    return w * (C{1} - w);
  }
};

// max(x, 0) / n. The data come second: a NaN stays.
template <class C>
struct ReLU {
  explicit ReLU(const double*) {}
  bool counts() const { return true; }
  C at(C n) const { return n; }
  Vec<C> weight(Vec<C> x, Vec<C> n) const { return max(Vec<C>{}, x) / n; }
  Vec<C> slope(Vec<C> x, Vec<C> n) const { return keep(x > Vec<C>{}, C{1} / n); }
};

// max(x, 0)^2 / n.
template <class C>
struct SquaredReLU {
  explicit SquaredReLU(const double*) {}
  bool counts() const { return true; }
  C at(C n) const { return n; }
  Vec<C> weight(Vec<C> x, Vec<C> n) const {
    const Vec<C> positive = max(Vec<C>{}, x);
    return positive * positive / n;
  }
  Vec<C> slope(Vec<C> x, Vec<C> n) const { return max(Vec<C>{}, x) * C{2} / n; }
};

}  // namespace manymax::MANYMAX_ISA
