// Storage types: loads widen to the compute type (float for float, bfloat16, float16; double for double), stores round to
// nearest even, as PyTorch does. bfloat16 NaNs become 0x7fc0.
#pragma once

#include "simd.h"

namespace manymax::MANYMAX_ISA {

struct BF16 {
  uint16_t bits;
};
struct F16 {
  uint16_t bits;
};
#if defined(__aarch64__)
using Half = __fp16;  // GCC 12 has no _Float16 in C++ there
#elif !defined(__F16C__)
using Half = _Float16;  // GCC 11 and Clang 14 have none on x86, and need none with these instructions
#endif

template <class S>
struct ComputeOf {
  using type = float;
};
template <>
struct ComputeOf<double> {
  using type = double;
};
template <class S>
using Compute = typename ComputeOf<S>::type;

typedef uint16_t VU16 __attribute__((vector_size(kVectorBytes / 2)));
typedef uint32_t VU32 __attribute__((vector_size(kVectorBytes)));

MM_INLINE VU16 load_16(const void* p) {
  VU16 x;
  __builtin_memcpy(&x, p, sizeof x);
  return x;
}

MM_INLINE VF widen(VU16 x, BF16) { return bit_cast<VF>(__builtin_convertvector(x, VU32) << 16); }

MM_INLINE VU16 narrow(VF x, BF16) {
  const VU32 bits = bit_cast<VU32>(x);
  const VU32 rounded = (bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16;
  return __builtin_convertvector(x == x ? rounded : 0x7fc0u + VU32{}, VU16);
}

#if defined(__AVX512F__)
MM_INLINE VF widen(VU16 x, F16) { return _mm512_cvtph_ps(bit_cast<__m256i>(x)); }
MM_INLINE VU16 narrow(VF x, F16) {
  return bit_cast<VU16>(_mm512_cvtps_ph(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC));
}
#elif defined(__F16C__) && defined(__AVX2__)
MM_INLINE VF widen(VU16 x, F16) { return _mm256_cvtph_ps(bit_cast<__m128i>(x)); }
MM_INLINE VU16 narrow(VF x, F16) { return bit_cast<VU16>(_mm256_cvtps_ph(x, _MM_FROUND_TO_NEAREST_INT)); }
#elif defined(__aarch64__)
MM_INLINE VF widen(VU16 x, F16) { return vcvt_f32_f16(bit_cast<float16x4_t>(x)); }
MM_INLINE VU16 narrow(VF x, F16) { return bit_cast<VU16>(vcvt_f16_f32(x)); }
#else
MM_INLINE VF widen(VU16 x, F16) {
  VF y{};
  for (int i = 0; i < kLanes<float>; ++i) y[i] = static_cast<float>(bit_cast<Half>(static_cast<uint16_t>(x[i])));
  return y;
}
MM_INLINE VU16 narrow(VF x, F16) {
  VU16 y{};
  for (int i = 0; i < kLanes<float>; ++i) y[i] = bit_cast<uint16_t>(static_cast<Half>(x[i]));
  return y;
}
#endif

// kLanes<Compute<S>> entries from or to memory of type S.
MM_INLINE VF load_as(const float* p) { return load(p); }
MM_INLINE VD load_as(const double* p) { return load(p); }
MM_INLINE VF load_as(const BF16* p) { return widen(load_16(p), BF16{}); }
MM_INLINE VF load_as(const F16* p) { return widen(load_16(p), F16{}); }

MM_INLINE void store_as(float* p, VF x) { store(p, x); }
MM_INLINE void store_as(double* p, VD x) { store(p, x); }
template <class S>
MM_INLINE void store_as(S* p, VF x) {
  const VU16 y = narrow(x, S{});
  __builtin_memcpy(p, &y, sizeof y);
}

// The same for the first n < kLanes entries; other lanes are 0, and no memory behind them is touched.
template <class S>
MM_INLINE Vec<Compute<S>> load_as(const S* p, int64_t n) {
  S whole[kLanes<Compute<S>>] = {};
  __builtin_memcpy(whole, p, static_cast<size_t>(n) * sizeof(S));
  return load_as(whole);
}

template <class S>
MM_INLINE void store_as(S* p, int64_t n, Vec<Compute<S>> x) {
  S whole[kLanes<Compute<S>>];
  store_as(whole, x);
  __builtin_memcpy(p, whole, static_cast<size_t>(n) * sizeof(S));
}

}  // namespace manymax::MANYMAX_ISA
