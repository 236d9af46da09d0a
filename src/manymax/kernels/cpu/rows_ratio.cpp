// Ratio maps other than softmax's.
#include "kernels.h"
#include "log.h"
#include "ratio_log.h"

namespace manymax::MANYMAX_ISA {
namespace {

// Maps that grow no faster than x need no shift.
template <class C>
struct Unshifted {
  explicit Unshifted(const RowsCall&) {}
  C shift(const C*, int64_t) const { return 0; }
  C usable(C) const { return 0; }
  C rescale(C, C) const { return 1; }
  C extra(C) const { return 0; }
  Vec<C> finish(Vec<C> w) const { return w; }
};

template <class C>
struct Softplus : Unshifted<C> {
  using Unshifted<C>::Unshifted;
  Vec<C> numerator(Vec<C> x, Vec<C>) const { return softplus<C>(x); }
  Vec<C> slope(Vec<C> x, Vec<C>) const { return sigmoid<C>(x); }
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

// Maps relative to the largest |x|, rounded up to a power of two: dividing by it is exact.
template <class C>
struct Scaled {
  C floor = 1;
  C eps = 0;

  C shift(const C* x, int64_t n) const {
    return max_over(x, n, [](Vec<C> v) { return v == -kInfinity<C> ? v : abs<C>(v); });
  }
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
  explicit Power(const RowsCall& call) : p(static_cast<int>(call.options[0])) {
    this->eps = static_cast<C>(call.options[1]);
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

template <class C>
struct Spherical : Scaled<C> {
  explicit Spherical(const RowsCall& call) {
    this->eps = static_cast<C>(call.options[0]);
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
  explicit Taylor(const RowsCall& call) : order(static_cast<int>(call.options[0])) {}
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

#define MM_RATIO(Map)                        \
  template <class C>                         \
  using Map##Forward = RatioForward<C, Map>; \
  template <class C>                         \
  using Map##Backward = RatioBackward<C, Map>;
MM_RATIO(Softplus)
MM_RATIO(StableMax)
MM_RATIO(Power)
MM_RATIO(Spherical)
MM_RATIO(Taylor)
template <class C>
using LogStableMax = LogForward<C, StableMax>;
template <class C>
using LogStableMaxBackward = LogBackward<C, StableMax>;

}  // namespace

void softplus_forward(const RowsCall& call) { run<SoftplusForward>(call); }
void softplus_backward(const RowsCall& call) { run<SoftplusBackward>(call); }
void stablemax_forward(const RowsCall& call) { run<StableMaxForward>(call); }
void stablemax_backward(const RowsCall& call) { run<StableMaxBackward>(call); }
void log_stablemax_forward(const RowsCall& call) { run<LogStableMax>(call); }
void log_stablemax_backward(const RowsCall& call) { run<LogStableMaxBackward>(call); }
void power_softmax_forward(const RowsCall& call) { run<PowerForward>(call); }
void power_softmax_backward(const RowsCall& call) { run<PowerBackward>(call); }
void spherical_softmax_forward(const RowsCall& call) { run<SphericalForward>(call); }
void spherical_softmax_backward(const RowsCall& call) { run<SphericalBackward>(call); }
void taylor_softmax_forward(const RowsCall& call) { run<TaylorForward>(call); }
void taylor_softmax_backward(const RowsCall& call) { run<TaylorBackward>(call); }

}  // namespace manymax::MANYMAX_ISA
