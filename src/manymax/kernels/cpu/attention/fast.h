// Functions that attention evaluates once a score, where a few more units in the last place do not show: sums of hundreds of
// products come before and after. Errors are relative and the worst on the range.
#pragma once

#include "../math.h"

namespace manymax::MANYMAX_ISA {

// 2^t on 0 <= t <= 1, exactly 1 at 0: minimax of degree 5, 9.2e-8, or rough of degree 3, 8.6e-5, a 20th of what rounding to
// bfloat16 costs.
template <bool kRough>
MM_INLINE VF exp2_poly(VF t) {
  if constexpr (kRough) {
    VF p = fma(splat(7.7067042509e-02f), t, splat(2.2764499062e-01f));
    p = fma(p, t, splat(6.9511678654e-01f));
    return fma(p, t, splat(1.0f));
  }
  VF p = fma(splat(1.8671327256e-03f), t, splat(9.0170220354e-03f));
  p = fma(p, t, splat(5.5799922180e-02f));
  p = fma(p, t, splat(2.4016444615e-01f));
  p = fma(p, t, splat(6.9315131239e-01f));
  return fma(p, t, splat(1.0f));
}

// 2^y for y <= 127 or NaN; exactly 0 at -inf.
template <bool kRough>
MM_INLINE VF exp2(VF y) {
#if defined(__AVX512F__)
  // y - floor(y), 0 for -inf; the scaling takes the floor itself and makes 0 of what is too small.
  return _mm512_scalef_ps(exp2_poly<kRough>(_mm512_reduce_ps(y, _MM_FROUND_TO_NEG_INF | _MM_FROUND_NO_EXC)), y);
#else
  y = max(splat(-160.0f), y);  // 2^-160 is 0 even as a subnormal number
  const VF rounded = (y - 0.5f) + ExpConstants<float>::kRound;
  return scale_by_power(exp2_poly<kRough>(y - (rounded - ExpConstants<float>::kRound)), rounded);
#endif
}

// 1 / x for 2^-126 <= |x| <= 2^126: 1.2e-7, or rough 6.2e-5 where that is an instruction.
template <bool kRough>
MM_INLINE VF reciprocal(VF x) {
#if defined(__AVX512F__)
  const VF r = _mm512_rcp14_ps(x);
  if constexpr (kRough) return r;
  return _mm512_fmadd_ps(r, _mm512_fnmadd_ps(x, r, splat(1.0f)), r);
#else
  return 1.0f / x;
#endif
}

// log(1 + u) on 0 <= u <= 1: u times a minimax polynomial of degree 8, 6.2e-8, or rough of degree 4, 5.7e-5.
template <bool kRough>
MM_INLINE VF log1p_poly(VF u) {
  if constexpr (kRough) {
    VF p = fma(splat(4.1347298587e-02f), u, splat(-1.5742719928e-01f));
    p = fma(p, u, splat(3.0630092448e-01f));
    p = fma(p, u, splat(-4.9697780445e-01f));
    return fma(p, u, splat(9.9994327795e-01f)) * u;
  }
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
