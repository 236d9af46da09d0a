// Functions that attention evaluates once a score, where a few more units in the last place do not show: sums of hundreds of
// products come before and after. Errors are relative and the worst on the range.
#pragma once

#include "../math.h"

namespace manymax::MANYMAX_ISA {

// 2^t on |t| <= 1/2, exactly 1 at 0: minimax of degree 5, 1.1e-7, or rough of degree 3, 1.0e-4, a 40th of what rounding to
// bfloat16 costs.
template <bool kRough>
MM_INLINE VF exp2_poly(VF t) {
  if constexpr (kRough) {
    VF p = fma(splat(5.5008931355e-02f), t, splat(2.4221095930e-01f));
    p = fma(p, t, splat(6.9328292704e-01f));
    return fma(p, t, splat(1.0f));
  }
  VF p = fma(splat(1.3264766667e-03f), t, splat(9.6715153863e-03f));
  p = fma(p, t, splat(5.5507336035e-02f));
  p = fma(p, t, splat(2.4022242025e-01f));
  p = fma(p, t, splat(6.9314697772e-01f));
  return fma(p, t, splat(1.0f));
}

inline constexpr float kLowestPower = -160;  // 2^-160 is 0 even as a subnormal number

// 2^y for y <= 127 or NaN; exactly 0 at -inf.
template <bool kRough>
MM_INLINE VF exp2(VF y) {
  y = max(splat(kLowestPower), y);
#if defined(__AVX512F__)
  const VF n = _mm512_roundscale_ps(y, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
  return _mm512_scalef_ps(exp2_poly<kRough>(y - n), n);
#else
  const VF rounded = y + ExpConstants<float>::kRound;
  return scale_by_power(exp2_poly<kRough>(y - (rounded - ExpConstants<float>::kRound)), rounded);
#endif
}

// 1 / x for 2^-126 <= |x| <= 2^126: 1.2e-7.
MM_INLINE VF reciprocal(VF x) {
#if defined(__AVX512F__)
  const VF r = _mm512_rcp14_ps(x);
  return _mm512_fmadd_ps(r, _mm512_fnmadd_ps(x, r, splat(1.0f)), r);
#else
  return 1.0f / x;
#endif
}

// log(1 + u) on 0 <= u <= 1: u times a minimax polynomial of degree 8, 6.2e-8.
MM_INLINE VF log1p_poly(VF u) {
  VF p = fma(splat(5.2327779991e-03f), u, splat(-2.9505701667e-02f));
  p = fma(p, u, splat(7.8226961480e-02f));
  p = fma(p, u, splat(-1.3663360492e-01f));
  p = fma(p, u, splat(1.9106081250e-01f));
  p = fma(p, u, splat(-2.4843010441e-01f));
  p = fma(p, u, splat(3.3319102787e-01f));
  p = fma(p, u, splat(-4.9999493748e-01f));
  return fma(p, u, splat(9.9999997005e-01f)) * u;
}

}  // namespace manymax::MANYMAX_ISA
