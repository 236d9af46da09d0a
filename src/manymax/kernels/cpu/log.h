// Logarithms and what is built on them. Errors as in math.h.
#pragma once

#include "math.h"

namespace manymax::MANYMAX_ISA {

template <class T>
struct LogConstants;
template <>
struct LogConstants<float> {
  static constexpr int32_t kOne = 0x3f800000, kRootHalf = 0x3f3504f3, kFraction = 0x007fffff;
  static constexpr float kLn2High = 6.9313812256e-01f, kLn2Low = 9.0580006145e-06f;
  // (log(1 + f) - f + f^2 / 2) / (s f ...) in s = f / (2 + f), to 2^-28 (the coefficients of fdlibm's logf).
  static constexpr float kPoly[] = {0.24279078841f, 0.28498786688f, 0.40000972152f, 0.66666662693f};
};
template <>
struct LogConstants<double> {
  static constexpr int64_t kOne = 0x3ff0000000000000, kRootHalf = 0x3fe6a09e667f3bcd, kFraction = 0x000fffffffffffff;
  static constexpr double kLn2High = 6.93147180369123816490e-01, kLn2Low = 1.90821492927058770002e-10;
  static constexpr double kPoly[] = {1.479819860511658591e-01, 1.531383769920937332e-01, 1.818357216161805012e-01,
                                     2.222219843214978396e-01, 2.857142874366239149e-01, 3.999999999940941908e-01,
                                     6.666666666666735130e-01};
};

// log(x) for normal positive x: at most 1 ulp.
template <class T>
MM_INLINE Vec<T> log_normal(Vec<T> x) {
  using K = LogConstants<T>;
  constexpr int kShift = ExpConstants<T>::kFraction;
  const Mask<T> bits = bit_cast<Mask<T>>(x) + (K::kOne - K::kRootHalf);
  const Mask<T> exponent = (bits >> kShift) - ExpConstants<T>::kBias;
  const Vec<T> f = bit_cast<Vec<T>>((bits & K::kFraction) + K::kRootHalf) - T{1};  // in [-0.293, 0.415]
  const Vec<T> k = __builtin_convertvector(exponent, Vec<T>);
  const Vec<T> s = f / (f + T{2});
  const Vec<T> z = s * s;
  Vec<T> r = splat<T>(K::kPoly[0]);
#pragma GCC unroll 8
  for (size_t i = 1; i < sizeof(K::kPoly) / sizeof(T); ++i) r = fma(r, z, splat<T>(K::kPoly[i]));
  const Vec<T> half = f * f * T{0.5};
  const Vec<T> small = s * (half + r * z) + k * K::kLn2Low;
  return fma(k, splat<T>(K::kLn2High), f - (half - small));
}

// log of positive numbers; 0, NaN and +inf stay as they are.
template <class C>
MM_INLINE Vec<C> logs_of(Vec<C> x) {
  constexpr C kNormal = sizeof(C) == 4 ? static_cast<C>(0x1p-126) : static_cast<C>(0x1p-1022);
  const Mask<C> tiny = x < splat(kNormal);
  const Vec<C> less = tiny ? splat(static_cast<C>(41.588830833596718565)) : Vec<C>{};  // 60 ln 2
  const Vec<C> log = log_normal<C>(tiny ? x * static_cast<C>(0x1p60) : x) - less;
  return (x > Vec<C>{}) & (x < splat(kInfinity<C>)) ? log : x;
}

// log(1 + x) for x >= 0, +inf and NaN included: at most 2 ulp.
template <class T>
MM_INLINE Vec<T> log1p(Vec<T> x) {
  const Vec<T> sum = x + T{1};
  const Vec<T> lost = (x - (sum - T{1})) / sum;  // what 1 + x rounded away
  const Vec<T> y = log_normal<T>(sum) + lost;
  return x < splat(kInfinity<T>) ? y : x;
}

// log(1 + exp(x)) for every x: at most 2 ulp.
template <class T>
MM_INLINE Vec<T> softplus(Vec<T> x) {
  const Vec<T> tail = log1p<T>(exp_nonpositive<T>(-abs<T>(x)));
  return max(Vec<T>{}, x) + tail;
}

// 1 / (1 + exp(-x)) for every x: relative error at most 3 ulp where the result is normal.
template <class T>
MM_INLINE Vec<T> sigmoid(Vec<T> x) {
  return T{1} / (T{1} + exp<T>(-x));
}

// tanh(x) for every x: at most 3 ulp. Below 0.625 an odd polynomial (Cephes), above 1 - 2 / (exp(2 |x|) + 1).
MM_INLINE VF tanh(VF x) {
  const VF size = abs<float>(x), z = x * x;
  VF p = splat(-5.70498872745e-3f);
  p = fma(p, z, splat(2.06390887954e-2f));
  p = fma(p, z, splat(-5.37397155531e-2f));
  p = fma(p, z, splat(1.33314422036e-1f));
  p = fma(p, z, splat(-3.33332819422e-1f));
  const VF near = fma(p * z, x, x);
  const VF far = 1.0f - 2.0f / (exp<float>(size + size) + 1.0f);
  return size < splat(0.625f) ? near : (x < VF{} ? -far : far);
}

}  // namespace manymax::MANYMAX_ISA
