// Elementary functions over vectors. Errors are the worst found against float64, in units in the last place (ulp) of the
// result; tests/kernels/cpu/test_math.cpp measures them in float32, at every 997th value by default and at all with argument 1.
#pragma once

#include "simd.h"

namespace manymax::MANYMAX_ISA {

template <class T>
struct ExpConstants;
template <>
struct ExpConstants<float> {
  static constexpr float kLowest = -104.0f;   // below -103.97 the result rounds to 0
  static constexpr float kHighest = 89.0f;    // above 88.73 it is +inf
  static constexpr float kLn2High = 0.693359375f, kLn2Low = -2.12194440e-4f;
  static constexpr float kRound = 12582912.0f;  // 1.5 * 2^23: adding it leaves the nearest integer in the low bits
  static constexpr int kFraction = 23, kBias = 127;
  // Minimax for (exp(t) - 1 - t) / t^2 on |t| <= ln(2) / 2: relative error of exp 3.1e-9, a twentieth of an ulp.
  static constexpr float kPoly[] = {1.381484249e-3f, 8.368765816e-3f, 4.166839208e-2f, 1.666652023e-1f, 4.999999338e-1f};
};
template <>
struct ExpConstants<double> {
  static constexpr double kLowest = -746.0, kHighest = 710.0;
  static constexpr double kLn2High = 6.93147180369123816490e-01, kLn2Low = 1.90821492927058770002e-10;
  static constexpr double kRound = 6755399441055744.0;
  static constexpr int kFraction = 52, kBias = 1023;
  // Taylor: the first term left out is 4e-18 of the result, since |t| <= 0.347.
  static constexpr double kPoly[] = {1.0 / 6227020800, 1.0 / 479001600, 1.0 / 39916800, 1.0 / 3628800,
                                     1.0 / 362880,     1.0 / 40320,     1.0 / 5040,     1.0 / 720,
                                     1.0 / 120,        1.0 / 24,        1.0 / 6,        0.5};
};

// The nearest integer n to x log2(e), with the remainder t = x - n ln 2 in two steps (n times kLn2High is exact).
template <class T>
MM_INLINE Vec<T> exp_reduce(Vec<T> x, Vec<T>& rounded) {
  using K = ExpConstants<T>;
  rounded = fma(x, splat<T>(static_cast<T>(1.4426950408889634)), splat<T>(K::kRound));
  const Vec<T> n = rounded - K::kRound;
  const Vec<T> t = fma(n, splat<T>(-K::kLn2High), x);
  return fma(n, splat<T>(-K::kLn2Low), t);
}

// exp(t) for |t| <= ln(2) / 2. Horner down to 1 + t (1 + t q): the rounding of the inner sum counts |t| <= 0.35 times,
// where t + t^2 q would count fully and leave 1.005 ulp.
template <class T>
MM_INLINE Vec<T> exp_poly(Vec<T> t) {
  using K = ExpConstants<T>;
  Vec<T> q = splat<T>(K::kPoly[0]);
#pragma GCC unroll 16
  for (size_t i = 1; i < sizeof(K::kPoly) / sizeof(T); ++i) q = fma(q, t, splat<T>(K::kPoly[i]));
  return fma(fma(q, t, splat<T>(1)), t, splat<T>(1));
}

// p * 2^n, where the low bits of `rounded` hold n.
#if defined(__AVX512F__)
MM_INLINE VF scale_by_power(VF p, VF rounded) {
  return _mm512_scalef_ps(p, rounded - ExpConstants<float>::kRound);
}
MM_INLINE VD scale_by_power(VD p, VD rounded) {
  return _mm512_scalef_pd(p, rounded - ExpConstants<double>::kRound);
}
#else
// In two factors, since 2^n alone overflows or is subnormal near the ends of the range where p 2^n is neither.
template <class V, class T = float>
MM_INLINE V scale_in_two(V p, V rounded) {
  using K = ExpConstants<T>;
  const Mask<T> n = bit_cast<Mask<T>>(rounded) - bit_cast<Bits<T>>(K::kRound);
  const Mask<T> half = n >> 1;
  const Mask<T> rest = n - half;
  return p * bit_cast<V>((half + K::kBias) << K::kFraction) * bit_cast<V>((rest + K::kBias) << K::kFraction);
}
MM_INLINE VF scale_by_power(VF p, VF rounded) { return scale_in_two<VF, float>(p, rounded); }
MM_INLINE VD scale_by_power(VD p, VD rounded) { return scale_in_two<VD, double>(p, rounded); }
#endif

// exp(x): at most 0.91 ulp for every float32 x, subnormal results included (1.18 on machines without a fused
// multiply-add); NaN gives NaN, +inf +inf, -inf 0.
template <class T>
MM_INLINE Vec<T> exp(Vec<T> x) {
  using K = ExpConstants<T>;
  // The data come second: a NaN stays a NaN.
  const Vec<T> clamped = min(splat<T>(K::kHighest), max(splat<T>(K::kLowest), x));
  Vec<T> rounded;
  const Vec<T> t = exp_reduce<T>(clamped, rounded);
  return scale_by_power(exp_poly<T>(t), rounded);
}

// exp(x) for x <= 0 (as scores less their maximum are): the same without the upper clamp.
template <class T>
MM_INLINE Vec<T> exp_nonpositive(Vec<T> x) {
  Vec<T> rounded;
  const Vec<T> t = exp_reduce<T>(max(splat<T>(ExpConstants<T>::kLowest), x), rounded);
  return scale_by_power(exp_poly<T>(t), rounded);
}

}  // namespace manymax::MANYMAX_ISA
