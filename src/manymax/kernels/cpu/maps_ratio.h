// The formulas of ratio maps, over vectors: what rows (ratio.h) and attention (attention/stages.h) compute weights with. A map is
// a class over the compute type, made from its options:
//
//   template <class C> struct Map {
//     explicit Map(const double* options);
//     static constexpr bool kShifts;                     // whether numerators are relative to a shift; else it is 0
//     static constexpr int kHeadroom;                    // how far scores may exceed the shift: at 60 a sum of 10^12
//                                                        // numerators is finite in float32. 0: not at all
//     Vec<C> size(Vec<C> x) const;                       // the shift is the largest of these; -inf at x = -inf
//     C usable(C shift) const;                           // what numerators take: finite, and at least the floor
//     Vec<C> numerator(Vec<C> x, Vec<C> shift) const;    // exactly 0 at x = -inf
//     Vec<C> slope(Vec<C> x, Vec<C> shift) const;        // its derivative in x
//     C rescale(C from, C to) const;                     // what turns numerators at `from` into numerators at `to`
//     C extra(C shift) const;                            // in units of a numerator at that shift
//     static constexpr bool kCounts;                     // whether it counts once for each visible entry
//     Vec<C> finish(Vec<C> w) const;                     // what becomes of the ratio: itself, or itself clipped
//   };
#pragma once

#include "log.h"
#include "loops.h"

namespace manymax::MANYMAX_ISA {

// The shift of these entries; -inf for none that is visible.
template <class Map, class C>
MM_INLINE C shift_of(const Map& map, const C* x, int64_t n) {
  if constexpr (!Map::kShifts) return 0;
  return max_over(x, n, [&](Vec<C> v) { return map.size(v); });
}

// softmax: numerators exp(x - shift), with the row's maximum as shift.
template <class C>
struct Softmax {
  explicit Softmax(const double*) {}
  static constexpr bool kShifts = true, kCounts = false;
  static constexpr int kHeadroom = 60;
  Vec<C> size(Vec<C> x) const { return x; }
  C usable(C shift) const { return shift == -kInfinity<C> ? C{0} : shift; }
  Vec<C> numerator(Vec<C> x, Vec<C> shift) const { return exp_nonpositive<C>(x - shift); }
  Vec<C> slope(Vec<C> x, Vec<C> shift) const { return numerator(x, shift); }
  C rescale(C from, C to) const { return scalar_exp(from - to); }
  C extra(C) const { return 0; }
  Vec<C> finish(Vec<C> w) const { return w; }
  Vec<C> log_numerator(Vec<C> x, Vec<C> shift) const { return x - shift; }
  Vec<C> log_slope(Vec<C>) const { return splat(C{1}); }
  C log_scale(C shift) const { return shift; }
};

// One more score of 0 in the sum: the shift is never below 0, so that exp(-shift) does not overflow.
template <class C>
struct Softmax1 : Softmax<C> {
  using Softmax<C>::Softmax;
  C usable(C shift) const { return shift > 0 ? shift : C{0}; }
  C extra(C shift) const { return scalar_exp(-shift); }
};

// Maps that grow no faster than x need no shift.
template <class C>
struct Unshifted {
  explicit Unshifted(const double*) {}
  static constexpr bool kShifts = false, kCounts = false;
  static constexpr int kHeadroom = 0;
  Vec<C> size(Vec<C> x) const { return x; }
  C usable(C) const { return 0; }
  C rescale(C, C) const { return 1; }
  C extra(C) const { return 0; }
  Vec<C> finish(Vec<C> w) const { return w; }
};

template <class C>
struct Softplus : Unshifted<C> {
  using Unshifted<C>::Unshifted;
  // log(1 + exp(x)) times this, so that 1 over a row's sum is finite even where all its numbers are subnormal.
  static constexpr C kTimes = sizeof(C) == 4 ? static_cast<C>(0x1p24) : static_cast<C>(0x1p60);
  Vec<C> numerator(Vec<C> x, Vec<C>) const { return softplus<C>(x) * kTimes; }
  Vec<C> slope(Vec<C> x, Vec<C>) const { return sigmoid<C>(x) * kTimes; }
};

// x + 1 from 0 on, 1 / (1 - x) below: with a = 1 + |x| that is a or 1 / a.
template <class C>
struct StableMax : Unshifted<C> {
  using Unshifted<C>::Unshifted;
  Vec<C> numerator(Vec<C> x, Vec<C>) const {
    const Vec<C> a = abs<C>(x) + C{1};
    return x < Vec<C>{} ? C{1} / a : a;
  }
  Vec<C> slope(Vec<C> x, Vec<C>) const {
    const Vec<C> inverse = C{1} / (abs<C>(x) + C{1});
    return x < Vec<C>{} ? inverse * inverse : splat(C{1});
  }
  Vec<C> log_numerator(Vec<C> x, Vec<C>) const {
    const Vec<C> size = log1p<C>(abs<C>(x));
    return x < Vec<C>{} ? -size : size;
  }
  Vec<C> log_slope(Vec<C> x) const { return C{1} / (abs<C>(x) + C{1}); }
};

// Maps relative to the largest |x|, rounded up to a power of two: dividing by it is exact. degree() is the power of the shift
// that numerators are divided by.
template <class C>
struct Scaled {
  static constexpr bool kShifts = true, kCounts = false;
  static constexpr int kHeadroom = 0;
  C floor = 1;
  C eps = 0;

  Vec<C> size(Vec<C> x) const { return x == -kInfinity<C> ? x : abs<C>(x); }
  C usable(C shift) const {
    shift = shift > floor ? shift : floor;
    if (shift == kInfinity<C>) return shift;
    using B = Bits<C>;
    constexpr B kFraction = (B{1} << ExpConstants<C>::kFraction) - 1;
    const C power = bit_cast<C>(static_cast<B>((bit_cast<B>(shift) + kFraction) & ~kFraction));
    return power == kInfinity<C> ? bit_cast<C>(static_cast<B>(bit_cast<B>(shift) & ~kFraction)) : power;
  }
  Vec<C> finish(Vec<C> w) const { return w; }
};

template <class C>
MM_INLINE C power_of(C x, int p) {
  C y = 1;
  for (int i = 0; i < p; ++i) y *= x;
  return y;
}

template <class C>
MM_INLINE Vec<C> power_of(Vec<C> x, int p) {
  Vec<C> y = splat(C{1});
  for (; p > 0; p >>= 1, x *= x)
    if (p & 1) y *= x;
  return y;
}

template <class C>
struct Power : Scaled<C> {
  int p;
  int degree() const { return p; }
  explicit Power(const double* options) : p(static_cast<int>(options[0])) {
    this->eps = static_cast<C>(options[1]);
    this->floor = this->eps == 0 ? static_cast<C>(1e-30) : C{1};
  }
  Vec<C> numerator(Vec<C> x, Vec<C> shift) const {
    return keep(x != -kInfinity<C>, power_of<C>(x * (C{1} / shift), p));
  }
  Vec<C> slope(Vec<C> x, Vec<C> shift) const {
    const Vec<C> inverse = C{1} / shift;
    return power_of<C>(x * inverse, p - 1) * inverse * static_cast<C>(p);
  }
  C rescale(C from, C to) const { return power_of<C>(from / to, p); }
  // Without eps the shift may be tiny and its inverse power infinite.
  C extra(C shift) const { return this->eps == 0 ? C{0} : this->eps * power_of<C>(1 / shift, p); }
};

// With eps for each visible entry.
template <class C>
struct MeanPower : Power<C> {
  using Power<C>::Power;
  static constexpr bool kCounts = true;
};

template <class C>
struct Spherical : Scaled<C> {
  int degree() const { return 2; }
  explicit Spherical(const double* options) {
    this->eps = static_cast<C>(options[0]);
    this->floor = this->eps == 0 ? static_cast<C>(1e-30) : C{1};
  }
  Vec<C> numerator(Vec<C> x, Vec<C> shift) const {
    const Vec<C> inverse = C{1} / shift, ratio = x * inverse;
    const Vec<C> share = this->eps == 0 ? Vec<C>{} : inverse * inverse * this->eps;
    return keep(x != -kInfinity<C>, fma(ratio, ratio, share));
  }
  Vec<C> slope(Vec<C> x, Vec<C> shift) const {
    const Vec<C> inverse = C{1} / shift;
    return x * inverse * inverse * C{2};
  }
  C rescale(C from, C to) const { return power_of<C>(from / to, 2); }
  C extra(C) const { return 0; }
};

// The sum of x^k / k! for k <= order, over shift^order, by Horner's rule with no power above 1.
template <class C>
struct Taylor : Scaled<C> {
  int order;
  int degree() const { return order; }
  explicit Taylor(const double* options) : order(static_cast<int>(options[0])) {}
  static MM_MEMBER Vec<C> polynomial(int order, Vec<C> x, Vec<C> shift) {
    const Vec<C> rest = C{1} / shift, ratio = x * rest;
    Vec<C> value = splat(C{1}), power = rest;
    for (int k = order; k > 0; --k, power *= rest) value = fma(ratio / static_cast<C>(k), value, power);
    return value;
  }
  Vec<C> numerator(Vec<C> x, Vec<C> shift) const {
    return keep(x != -kInfinity<C>, polynomial(order, x, shift));
  }
  Vec<C> slope(Vec<C> x, Vec<C> shift) const { return polynomial(order - 1, x, shift) * (C{1} / shift); }
  C rescale(C from, C to) const { return power_of<C>(from / to, order); }
  C extra(C) const { return 0; }
};

}  // namespace manymax::MANYMAX_ISA
