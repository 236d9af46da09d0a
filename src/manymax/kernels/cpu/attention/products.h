// Matrix products of attention: C (rows x columns, float) = A B or += A B, six rows and one panel of columns at a time, which
// fills the registers: 24 sums, 4 of B and 1 of A with AVX-512.
//
// Element is float, or Pair: two bfloat16 neighbours along the summed dim, which one instruction multiplies and adds. Strides and
// the length k of the sum are in elements, so that one source serves both.
#pragma once

#include "../simd.h"

namespace manymax::MANYMAX_ISA {

inline constexpr int kStrip = 6;  // rows of C held in registers
#if defined(__AVX512F__) || defined(__aarch64__)
inline constexpr int kPanelVectors = 4;  // of 32 registers
#else
inline constexpr int kPanelVectors = 2;  // of 16 registers
#endif
inline constexpr int kLane = kLanes<float>;
inline constexpr int kPanel = kPanelVectors * kLane;  // columns of C held in registers

struct Pair {
  uint32_t bits;  // the first entry in the low half
};

template <class E>
struct ElementOf;
template <>
struct ElementOf<float> {
  static constexpr int kEntries = 1;  // of the summed dim
  using Vector = VF;
  static MM_MEMBER VF read(const float* p) { return load(p); }
  static MM_MEMBER VF repeat(float a) { return splat(a); }
  static MM_MEMBER VF multiply_add(VF a, VF b, VF c) { return fma(a, b, c); }
};
#if defined(__AVX512BF16__)
template <>
struct ElementOf<Pair> {
  static constexpr int kEntries = 2;
  using Vector = __m512bh;
  static MM_MEMBER __m512bh read(const Pair* p) { return (__m512bh)_mm512_loadu_si512(p); }
  static MM_MEMBER __m512bh repeat(Pair a) { return (__m512bh)_mm512_set1_epi32(static_cast<int>(a.bits)); }
  static MM_MEMBER VF multiply_add(__m512bh a, __m512bh b, VF c) { return _mm512_dpbf16_ps(c, a, b); }
};
#endif

enum class Into { fresh, sum, scaled_sum };  // C = A B; C += A B; C = scale C + A B with one factor a row

// A and B, and how long their sum is. `a` holds rows of A, or if transposed its columns: a[s * lda + row].
template <class E>
struct Factors {
  const E* a;
  int64_t lda;
  const E* b;
  int64_t ldb;
  int64_t k;
};

// Memory to ask for while a product runs, evenly: a burst would keep the product's own loads waiting, 73 % of its rate for 91.
struct Ahead {
  const char* at = nullptr;
  int64_t lines = 0;  // of 64 bytes, for each strip
};

// One strip and V vectors of columns.
template <class E, int V, Into kInto, bool kTransposed, bool kAsks>
MM_INLINE void strip_product(Factors<E> f, float* c, int64_t ldc, const float* scale, Ahead ahead) {
  using Element = ElementOf<E>;
  VF sum[kStrip][V];
#pragma GCC unroll 8
  for (int i = 0; i < kStrip; ++i)
#pragma GCC unroll 4
    for (int v = 0; v < V; ++v) sum[i][v] = VF{};
  int64_t s = 0;
  const auto go_to = [&](int64_t end) {
    for (; s < end; ++s) {
      typename Element::Vector b[V];
#pragma GCC unroll 4
      for (int v = 0; v < V; ++v) b[v] = Element::read(f.b + s * f.ldb + v * kLane);
#pragma GCC unroll 8
      for (int i = 0; i < kStrip; ++i) {
        const auto a = Element::repeat(kTransposed ? f.a[s * f.lda + i] : f.a[i * f.lda + s]);
#pragma GCC unroll 4
        for (int v = 0; v < V; ++v) sum[i][v] = Element::multiply_add(a, b[v], sum[i][v]);
      }
    }
  };
  if constexpr (kAsks) {
    const int64_t steps = ahead.lines < f.k ? f.k / (ahead.lines + 1) : 1;
    for (int64_t line = 0; line < ahead.lines; ++line) {
      __builtin_prefetch(ahead.at + line * 64, 0, 2);
      go_to(s + steps < f.k ? s + steps : f.k);
    }
  }
  go_to(f.k);
  // C joins last: a sum of sums rounds less than one long chain, 3 times less for 1000 terms.
#pragma GCC unroll 8
  for (int i = 0; i < kStrip; ++i) {
#pragma GCC unroll 4
    for (int v = 0; v < V; ++v) {
      float* to = c + i * ldc + v * kLane;
      if constexpr (kInto == Into::fresh) store(to, sum[i][v]);
      if constexpr (kInto == Into::sum) store(to, load(to) + sum[i][v]);
      if constexpr (kInto == Into::scaled_sum) store(to, fma(load(to), splat(scale[i]), sum[i][v]));
    }
  }
}

// Factors come by reference: as a value they would be copied by a wide load of what narrow stores have just written, which waits
// until those and all stores before them have left the core: 4 % of the output layer, whose products of one strip follow many stores.
template <class E, int V, Into kInto, bool kTransposed, bool kAsks>
static void strips_product(const Factors<E>& factors, float* c, int64_t ldc, int64_t strips, const float* scale, Ahead ahead) {
  Factors<E> f = factors;
  for (int64_t s = 0; s < strips; ++s) {
    strip_product<E, V, kInto, kTransposed, kAsks>(f, c, ldc, scale, ahead);
    f.a += kTransposed ? kStrip : kStrip * f.lda;
    c += kStrip * ldc;
    ahead.at += ahead.lines * 64;
    if (kInto == Into::scaled_sum) scale += kStrip;
  }
}

// The product for `strips` strips and one panel, or the `vectors` of it that there are.
template <class E, Into kInto, bool kTransposed, bool kAsks>
static void panel_product(const Factors<E>& f, float* c, int64_t ldc, int64_t strips, int64_t vectors, const float* scale, Ahead ahead) {
  if (vectors == kPanelVectors) strips_product<E, kPanelVectors, kInto, kTransposed, kAsks>(f, c, ldc, strips, scale, ahead);
  else if (vectors == 1) strips_product<E, 1, kInto, kTransposed, kAsks>(f, c, ldc, strips, scale, ahead);
  if constexpr (kPanelVectors > 2) {
    if (vectors == 2) strips_product<E, 2, kInto, kTransposed, kAsks>(f, c, ldc, strips, scale, ahead);
    if (vectors == 3) strips_product<E, 3, kInto, kTransposed, kAsks>(f, c, ldc, strips, scale, ahead);
  }
}

// The product for `strips` strips and `vectors` vectors of columns. A panel of B stays in the first-level cache for all strips.
template <class E, Into kInto, bool kTransposed = false>
static void multiply(Factors<E> f, float* c, int64_t ldc, int64_t strips, int64_t vectors, const float* scale = nullptr) {
  for (; vectors > 0; vectors -= kPanelVectors, f.b += kPanel, c += kPanel)
    panel_product<E, kInto, kTransposed, false>(f, c, ldc, strips, vectors < kPanelVectors ? vectors : kPanelVectors, scale, {});
}

// The product for one panel, or the `vectors` of it that there are, while `bytes` from `next` are asked for.
template <class E, Into kInto, bool kTransposed = false>
static void multiply_asking(const Factors<E>& f, float* c, int64_t ldc, int64_t strips, int64_t vectors, const void* next,
                            int64_t bytes) {
  const Ahead ahead = {static_cast<const char*>(next), (bytes + 64 * strips - 1) / (64 * strips)};
  panel_product<E, kInto, kTransposed, true>(f, c, ldc, strips, vectors, nullptr, ahead);
}

}  // namespace manymax::MANYMAX_ISA
