// Vectors of the instruction set that this file is compiled for: one register wide, over GCC and Clang vector extensions.
//
// Vec<float> and Vec<double> take + - * /, comparisons (which give an integer mask, all bits set where true) and
// `mask ? a : b`. The rest is here and in simd_ops.h: splat, fma, max, sqrt, loads and stores with tails, reductions.
// Intrinsics appear only where the language has nothing, or the compiler misses the instruction.
//
// Everything lives in a namespace named after the instruction set, and nothing in it may use inline functions of std:
// the linker keeps one copy of those, and could keep the AVX-512 copy for a machine that has only AVX2.
#pragma once

#include <cstddef>
#include <cstdint>

#if defined(__AVX2__) || defined(__AVX512F__)
#include <immintrin.h>
#elif defined(__aarch64__)
#include <arm_neon.h>
#endif

#ifndef MANYMAX_ISA
#error "compile with -DMANYMAX_ISA=avx2 or another name of dispatch.cpp"
#endif

#define MM_MEMBER inline __attribute__((always_inline))
#define MM_INLINE static MM_MEMBER

namespace manymax::MANYMAX_ISA {

#if defined(__AVX512F__)
inline constexpr int kVectorBytes = 64;
#elif defined(__AVX2__)
inline constexpr int kVectorBytes = 32;
#else
inline constexpr int kVectorBytes = 16;  // NEON, SSE2, or whatever the compiler makes of 16 bytes
#endif

template <class T>
struct VectorOf {
  typedef T type __attribute__((vector_size(kVectorBytes)));
};
template <class T>
using Vec = typename VectorOf<T>::type;
template <class T>
inline constexpr int kLanes = kVectorBytes / static_cast<int>(sizeof(T));

// The integers of a scalar's width: lanes of its masks and of its bits.
template <class T>
struct BitsOf;
template <>
struct BitsOf<float> {
  using type = int32_t;
};
template <>
struct BitsOf<double> {
  using type = int64_t;
};
template <class T>
using Bits = typename BitsOf<T>::type;
template <class T>
using Mask = Vec<Bits<T>>;

template <class T>
inline constexpr T kInfinity = static_cast<T>(__builtin_inf());

// x - 0 is x for every x, the sign of zero included; 0 + x would lose it.
template <class T>
MM_INLINE Vec<T> splat(T x) {
  return x - Vec<T>{};
}

template <class To, class From>
MM_INLINE To bit_cast(From x) {
  static_assert(sizeof(To) == sizeof(From));
  To result;
  __builtin_memcpy(&result, &x, sizeof(To));
  return result;
}

template <class T>
MM_INLINE Vec<T> load(const T* p) {
  Vec<T> x;
  __builtin_memcpy(&x, p, sizeof x);
  return x;
}

template <class T>
MM_INLINE void store(T* p, Vec<T> x) {
  __builtin_memcpy(p, &x, sizeof x);
}

// {0, 1, 2, ...}
template <class T>
MM_INLINE Vec<T> iota() {
  Vec<T> x{};
  for (int i = 0; i < kLanes<T>; ++i) x[i] = static_cast<T>(i);
  return x;
}

// Set in the first n lanes.
template <class T>
MM_INLINE Mask<T> first_lanes(int64_t n) {
  return iota<Bits<T>>() < splat<Bits<T>>(static_cast<Bits<T>>(n));
}

template <class T>
MM_INLINE Vec<T> abs(Vec<T> x) {
  using B = Bits<T>;
  constexpr B kAllButSign = static_cast<B>(~(B{1} << (sizeof(B) * 8 - 1)));
  return bit_cast<Vec<T>>(bit_cast<Mask<T>>(x) & kAllButSign);
}

}  // namespace manymax::MANYMAX_ISA

#include "simd_ops.h"
