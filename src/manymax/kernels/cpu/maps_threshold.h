// Sparsemax and 1.5-entmax: weights max(s - tau, 0)^p with p = 1 or 2, s = x or x / 2, and tau such that they sum to 1.
//
// tau lies less than 1 below the largest s. One visit of the row keeps the entries above that cut, which for scores of
// any spread are few; Newton's method then runs on them alone. It starts from the left, where the sum is a convex
// function of tau, so that tau only grows and entries below it are dropped for good. No sort.
#pragma once

#include "stream.h"

namespace manymax::MANYMAX_ISA {

template <class C>
struct Cut {
  C largest;  // of s; NaN if the row holds NaN or +inf
  C tau;      // relative to the largest
  C rest;     // to subtract after tau: near 1 in size, tau alone is rounded by half an ulp of 1, n weights by as much
};

// Append the entries of x where `above` is set to `kept`; a whole vector is written each time.
#if defined(__AVX512F__)
MM_INLINE int64_t append(float* kept, VF x, Mask<float> above) {
  const __mmask16 m = _mm512_movepi32_mask(bit_cast<__m512i>(above));
  _mm512_storeu_ps(kept, _mm512_maskz_compress_ps(m, x));
  return __builtin_popcount(m);
}
MM_INLINE int64_t append(double* kept, VD x, Mask<double> above) {
  const __mmask8 m = _mm512_movepi64_mask(bit_cast<__m512i>(above));
  _mm512_storeu_pd(kept, _mm512_maskz_compress_pd(m, x));
  return __builtin_popcount(m);
}
#else
template <class C, class V, class M>
MM_INLINE int64_t append(C* kept, V x, M above) {
  int64_t count = 0;
  for (int i = 0; i < kLanes<C>; ++i) {
    kept[count] = x[i];
    count -= above[i];
  }
  return count;
}
#endif

// Append those of which `takes` holds, which it must not of a NaN; `kept` may be x.
template <class C, class Takes>
MM_INLINE int64_t append_where(C* kept, const C* x, int64_t n, const Takes& takes) {
  constexpr int L = kLanes<C>;
  int64_t count = 0, i = 0;
  for (; i + L <= n; i += L) {
    const Vec<C> v = load(x + i);
    count += append(kept + count, v, takes(v));
  }
  if (i < n) {
    const Vec<C> v = load(x + i, n - i, static_cast<C>(__builtin_nan("")));
    count += append(kept + count, v, takes(v));
  }
  return count;
}
template <class C>
MM_INLINE int64_t append_above(C* kept, const C* x, int64_t n, C low) {
  return append_where(kept, x, n, [&](Vec<C> v) { return v > splat(low); });
}

// Keep entries within `reach` of the largest so far; return the largest score, NaN if there is a NaN.
template <class C>
static C candidates(const Reader<C>& x, int64_t n, C reach, C* kept, int64_t& count) {
  C largest = -kInfinity<C>;
  Mask<C> bad{};
  chunks(0, n, [&](int64_t k, int64_t length) {
    const C* in = x.get(k, length);
    const C top = max_over(in, length, [&](Vec<C> v) {
      bad |= v != v;
      return v;
    });
    if (top > largest) largest = top;
    const C low = largest - reach;
    if (top > low) count += append_above(kept + count, in, length, low);
  });
  return any(bad) ? static_cast<C>(__builtin_nan("")) : largest;
}

// kPower 1: sparsemax, 2: 1.5-entmax.
// Newton's method on the candidates, which are made relative to the largest on the way and dropped as tau passes them.
template <class C, int kPower>
static Cut<C> search_cut(C* kept, int64_t count, C largest) {
  constexpr C kScale = C{1} / kPower;
  constexpr C kTolerance = sizeof(C) == 4 ? static_cast<C>(1e-6) : static_cast<C>(1e-15);
  if (count == 0) return {0, 0, 0};  // nothing is visible
  const C top = largest * kScale;
  map_over(kept, kept, count, [&](Vec<C> v) { return v * kScale - top; });
  C tau = -1, before = kInfinity<C>;
  for (int step = 0; step < 64; ++step) {
    count = append_above(kept, kept, count, tau);
    const Vec<C> at = splat(tau);
    const C roots = sum_over(kept, count, tau, [&](Vec<C> v) { return v - at; });
    const C sum = kPower == 1 ? roots : sum_over(kept, count, tau, [&](Vec<C> v) { return (v - at) * (v - at); });
    const C rest = (sum - 1) / (kPower == 1 ? static_cast<C>(count) : 2 * roots);
    if (sum - 1 <= kTolerance || sum >= before) return {top, tau, rest};
    before = sum;
    tau += rest;
  }
  return {top, tau, 0};
}

// max(x kScale - cut, 0)^kPower.
template <class C, int kPower>
MM_INLINE Vec<C> above_cut(Vec<C> x, Vec<C> largest, Vec<C> tau, Vec<C> rest) {
  const Vec<C> root = max(Vec<C>{}, x * (C{1} / kPower) - largest - tau - rest);
  return kPower == 1 ? root : root * root;
}

}  // namespace manymax::MANYMAX_ISA
