// Operations that have an instruction but no operator: fma, max, min, sqrt, tails. Included by simd.h.
//
// max(a, b) and min(a, b) return b where either is NaN, as the x86 instructions do: put the accumulator second to skip
// NaNs, the data second to keep them.
#pragma once

namespace manymax::MANYMAX_ISA {

using VF = Vec<float>;
using VD = Vec<double>;

// The forms for any machine. Clang and GCC turn max and min into one instruction where the target has it.
template <class T>
MM_INLINE Vec<T> max_any(Vec<T> a, Vec<T> b) {
  return a > b ? a : b;
}

template <class T>
MM_INLINE Vec<T> min_any(Vec<T> a, Vec<T> b) {
  return a < b ? a : b;
}

// Lane by lane: a vector has at most four here, and a copy of n bytes would be a call.
template <class T>
MM_INLINE Vec<T> load_any(const T* p, int64_t n, T fill) {
  Vec<T> x = splat<T>(fill);
#pragma GCC unroll 4
  for (int i = 0; i < kLanes<T> - 1; ++i)
    if (i < n) x[i] = p[i];
  return x;
}

template <class T>
MM_INLINE void store_any(T* p, int64_t n, Vec<T> x) {
#pragma GCC unroll 4
  for (int i = 0; i < kLanes<T> - 1; ++i)
    if (i < n) p[i] = x[i];
}

// Sum or maximum of the lanes in a fixed order: halves are combined until one lane is left.
template <class T>
struct Lanes {
  T a[kLanes<T>];
};
template <class T, int N, class Op>
MM_INLINE T reduce_any(const T (&lanes)[N], const Op& op) {
  T a[N];
  __builtin_memcpy(a, lanes, sizeof a);
#pragma GCC unroll 4
  for (int w = N / 2; w > 0; w /= 2)
    for (int i = 0; i < w; ++i) a[i] = op(a[i], a[i + w]);
  return a[0];
}

#if defined(__AVX512F__)

MM_INLINE VF fma(VF a, VF b, VF c) { return _mm512_fmadd_ps(a, b, c); }
MM_INLINE VD fma(VD a, VD b, VD c) { return _mm512_fmadd_pd(a, b, c); }
MM_INLINE VF max(VF a, VF b) { return _mm512_max_ps(a, b); }
MM_INLINE VD max(VD a, VD b) { return _mm512_max_pd(a, b); }
MM_INLINE VF min(VF a, VF b) { return _mm512_min_ps(a, b); }
MM_INLINE VD min(VD a, VD b) { return _mm512_min_pd(a, b); }
MM_INLINE VF sqrt(VF a) { return _mm512_sqrt_ps(a); }
MM_INLINE VD sqrt(VD a) { return _mm512_sqrt_pd(a); }

MM_INLINE __mmask16 lanes16(int64_t n) { return static_cast<__mmask16>((1u << n) - 1); }
MM_INLINE __mmask8 lanes8(int64_t n) { return static_cast<__mmask8>((1u << n) - 1); }

// n < kLanes elements; the other lanes hold `fill`, and memory behind p[n - 1] is not touched.
MM_INLINE VF load(const float* p, int64_t n, float fill) {
  return _mm512_mask_loadu_ps(_mm512_set1_ps(fill), lanes16(n), p);
}
MM_INLINE VD load(const double* p, int64_t n, double fill) {
  return _mm512_mask_loadu_pd(_mm512_set1_pd(fill), lanes8(n), p);
}
MM_INLINE void store(float* p, int64_t n, VF x) { _mm512_mask_storeu_ps(p, lanes16(n), x); }
MM_INLINE void store(double* p, int64_t n, VD x) { _mm512_mask_storeu_pd(p, lanes8(n), x); }

MM_INLINE float reduce_add(VF x) { return _mm512_reduce_add_ps(x); }
MM_INLINE double reduce_add(VD x) { return _mm512_reduce_add_pd(x); }
MM_INLINE float reduce_max(VF x) { return _mm512_reduce_max_ps(x); }
MM_INLINE double reduce_max(VD x) { return _mm512_reduce_max_pd(x); }

#elif defined(__AVX2__)

MM_INLINE VF fma(VF a, VF b, VF c) { return _mm256_fmadd_ps(a, b, c); }
MM_INLINE VD fma(VD a, VD b, VD c) { return _mm256_fmadd_pd(a, b, c); }
MM_INLINE VF max(VF a, VF b) { return _mm256_max_ps(a, b); }
MM_INLINE VD max(VD a, VD b) { return _mm256_max_pd(a, b); }
MM_INLINE VF min(VF a, VF b) { return _mm256_min_ps(a, b); }
MM_INLINE VD min(VD a, VD b) { return _mm256_min_pd(a, b); }
MM_INLINE VF sqrt(VF a) { return _mm256_sqrt_ps(a); }
MM_INLINE VD sqrt(VD a) { return _mm256_sqrt_pd(a); }

// n < kLanes elements; the other lanes hold `fill`, and memory behind p[n - 1] is not touched.
MM_INLINE VF load(const float* p, int64_t n, float fill) {
  const Mask<float> m = first_lanes<float>(n);
  return m ? VF(_mm256_maskload_ps(p, bit_cast<__m256i>(m))) : splat(fill);
}
MM_INLINE VD load(const double* p, int64_t n, double fill) {
  const Mask<double> m = first_lanes<double>(n);
  return m ? VD(_mm256_maskload_pd(p, bit_cast<__m256i>(m))) : splat(fill);
}
MM_INLINE void store(float* p, int64_t n, VF x) { _mm256_maskstore_ps(p, bit_cast<__m256i>(first_lanes<float>(n)), x); }
MM_INLINE void store(double* p, int64_t n, VD x) {
  _mm256_maskstore_pd(p, bit_cast<__m256i>(first_lanes<double>(n)), x);
}

MM_INLINE float reduce_add(VF x) {
  const __m128 a = _mm_add_ps(_mm256_castps256_ps128(x), _mm256_extractf128_ps(x, 1));
  const __m128 b = _mm_add_ps(a, _mm_movehl_ps(a, a));
  return _mm_cvtss_f32(_mm_add_ss(b, _mm_movehdup_ps(b)));
}
MM_INLINE float reduce_max(VF x) {
  const __m128 a = _mm_max_ps(_mm256_castps256_ps128(x), _mm256_extractf128_ps(x, 1));
  const __m128 b = _mm_max_ps(a, _mm_movehl_ps(a, a));
  return _mm_cvtss_f32(_mm_max_ss(b, _mm_movehdup_ps(b)));
}
MM_INLINE double reduce_add(VD x) {
  const __m128d a = _mm_add_pd(_mm256_castpd256_pd128(x), _mm256_extractf128_pd(x, 1));
  return _mm_cvtsd_f64(_mm_add_sd(a, _mm_unpackhi_pd(a, a)));
}
MM_INLINE double reduce_max(VD x) {
  const __m128d a = _mm_max_pd(_mm256_castpd256_pd128(x), _mm256_extractf128_pd(x, 1));
  return _mm_cvtsd_f64(_mm_max_sd(a, _mm_unpackhi_pd(a, a)));
}

#elif defined(__aarch64__)

MM_INLINE VF fma(VF a, VF b, VF c) { return vfmaq_f32(c, a, b); }
MM_INLINE VD fma(VD a, VD b, VD c) { return vfmaq_f64(c, a, b); }
// Two instructions: the ones for max and min treat NaN alike on both sides.
MM_INLINE VF max(VF a, VF b) { return max_any<float>(a, b); }
MM_INLINE VD max(VD a, VD b) { return max_any<double>(a, b); }
MM_INLINE VF min(VF a, VF b) { return min_any<float>(a, b); }
MM_INLINE VD min(VD a, VD b) { return min_any<double>(a, b); }
MM_INLINE VF sqrt(VF a) { return vsqrtq_f32(a); }
MM_INLINE VD sqrt(VD a) { return vsqrtq_f64(a); }
MM_INLINE VF load(const float* p, int64_t n, float fill) { return load_any(p, n, fill); }
MM_INLINE VD load(const double* p, int64_t n, double fill) { return load_any(p, n, fill); }
MM_INLINE void store(float* p, int64_t n, VF x) { store_any(p, n, x); }
MM_INLINE void store(double* p, int64_t n, VD x) { store_any(p, n, x); }
MM_INLINE float reduce_add(VF x) { return vaddvq_f32(x); }
MM_INLINE double reduce_add(VD x) { return vaddvq_f64(x); }
MM_INLINE float reduce_max(VF x) { return vmaxnmvq_f32(x); }
MM_INLINE double reduce_max(VD x) { return vmaxnmvq_f64(x); }

#else

// Two roundings: a scalar library call for each lane would cost 30 times as much.
MM_INLINE VF fma(VF a, VF b, VF c) { return a * b + c; }
MM_INLINE VD fma(VD a, VD b, VD c) { return a * b + c; }
MM_INLINE VF max(VF a, VF b) { return max_any<float>(a, b); }
MM_INLINE VD max(VD a, VD b) { return max_any<double>(a, b); }
MM_INLINE VF min(VF a, VF b) { return min_any<float>(a, b); }
MM_INLINE VD min(VD a, VD b) { return min_any<double>(a, b); }
MM_INLINE VF sqrt(VF a) {
  for (int i = 0; i < kLanes<float>; ++i) a[i] = __builtin_sqrtf(a[i]);
  return a;
}
MM_INLINE VD sqrt(VD a) {
  for (int i = 0; i < kLanes<double>; ++i) a[i] = __builtin_sqrt(a[i]);
  return a;
}
MM_INLINE VF load(const float* p, int64_t n, float fill) { return load_any(p, n, fill); }
MM_INLINE VD load(const double* p, int64_t n, double fill) { return load_any(p, n, fill); }
MM_INLINE void store(float* p, int64_t n, VF x) { store_any(p, n, x); }
MM_INLINE void store(double* p, int64_t n, VD x) { store_any(p, n, x); }

template <class V, class T>
MM_INLINE T reduce_add_any(V x) {
  return reduce_any(bit_cast<Lanes<T>>(x).a, [](T a, T b) { return a + b; });
}
template <class V, class T>
MM_INLINE T reduce_max_any(V x) {
  return reduce_any(bit_cast<Lanes<T>>(x).a, [](T a, T b) { return a > b ? a : b; });
}
MM_INLINE float reduce_add(VF x) { return reduce_add_any<VF, float>(x); }
MM_INLINE double reduce_add(VD x) { return reduce_add_any<VD, double>(x); }
MM_INLINE float reduce_max(VF x) { return reduce_max_any<VF, float>(x); }
MM_INLINE double reduce_max(VD x) { return reduce_max_any<VD, double>(x); }

#endif

// x where `mask` is set, else 0: one `and`, and the zero is exact whatever x holds (NaN and infinity too).
MM_INLINE VF keep(Mask<float> mask, VF x) { return bit_cast<VF>(bit_cast<Mask<float>>(x) & mask); }
MM_INLINE VD keep(Mask<double> mask, VD x) { return bit_cast<VD>(bit_cast<Mask<double>>(x) & mask); }

// Whether a lane is set.
#if defined(__AVX512F__)
MM_INLINE bool any(Mask<float> mask) { return _mm512_movepi32_mask(bit_cast<__m512i>(mask)) != 0; }
MM_INLINE bool any(Mask<double> mask) { return _mm512_movepi64_mask(bit_cast<__m512i>(mask)) != 0; }
#elif defined(__AVX2__)
MM_INLINE bool any(Mask<float> mask) { return _mm256_movemask_ps(bit_cast<__m256>(mask)) != 0; }
MM_INLINE bool any(Mask<double> mask) { return _mm256_movemask_pd(bit_cast<__m256d>(mask)) != 0; }
#else
template <class M>
MM_INLINE bool any(M mask) {
  bool found = false;
  for (size_t i = 0; i < sizeof(M) / sizeof(mask[0]); ++i) found |= mask[i] != 0;
  return found;
}
#endif

}  // namespace manymax::MANYMAX_ISA
