// Products of a few queries with keys and values as they lie in memory, which is read once: scores as dot products, sixteen keys at
// a time (as many as a vector has lanes), and sums of weighted values.
#pragma once

#include "pack.h"

namespace manymax::MANYMAX_ISA {

// A vector of the summed dim of query and key: kLane floats, or kLane pairs.
template <class S>
MM_INLINE VF key_vector(const S* p, int64_t left, float) {
  return load_some(p, left);
}
#if defined(__AVX512BF16__)
MM_INLINE __m512bh key_vector(const BF16* p, int64_t left, Pair) {
  if (left >= 2 * kLane) return (__m512bh)_mm512_loadu_si512(p);
  Pair part[kLane] = {};
  __builtin_memcpy(part, p, static_cast<size_t>(left) * sizeof(BF16));
  return ElementOf<Pair>::read(part);
}
#endif

// Bytes ahead of what is read: at 30 GB/s a thread, 16 KB are half a microsecond, a few times the latency of memory. A prefetch
// past the end of a tensor touches nothing.
inline constexpr int kAhead = 16384;

MM_INLINE void prefetch_line(const void* p) { __builtin_prefetch(static_cast<const char*>(p) + kAhead); }

// sums[i] += the part of q . k from element d on that V vectors hold, for kLane keys, one after the other as they lie in memory.
// kAll: `last` is at least the last of these keys.
template <class S, class E, int V, bool kAll>
MM_INLINE void dot_part(const E* query, const S* keys, int64_t step, int64_t last, int64_t d, int64_t dim, VF (&sums)[kLane]) {
  constexpr int64_t kWide = kLane * ElementOf<E>::kEntries;
  typename ElementOf<E>::Vector q[V];
#pragma GCC unroll 4
  for (int v = 0; v < V; ++v) q[v] = ElementOf<E>::read(query + d / ElementOf<E>::kEntries + v * kLane);
#pragma GCC unroll 16
  for (int i = 0; i < kLane; ++i) {
    const S* key = keys + (kAll || i < last ? i : last) * step + d;
    VF sum{};
#pragma GCC unroll 4
    for (int v = 0; v < V; ++v) {
      prefetch_line(key + v * kWide);
      const int64_t left = V == 1 ? dim - d : kWide;  // several vectors are whole ones
      sum = ElementOf<E>::multiply_add(q[v], key_vector(key + v * kWide, left, E{}), sum);
    }
    sums[i] += sum;
  }
}

template <class S, class E, bool kAll>
MM_INLINE VF dot_keys(const E* query, const S* keys, int64_t step, int64_t last, int64_t dim) {
  constexpr int64_t kWide = kLane * ElementOf<E>::kEntries;
  VF sums[kLane];
#pragma GCC unroll 16
  for (int i = 0; i < kLane; ++i) sums[i] = VF{};
  int64_t d = 0;
  for (; d + 4 * kWide <= dim; d += 4 * kWide) dot_part<S, E, 4, kAll>(query, keys, step, last, d, dim, sums);
  if (d + 2 * kWide <= dim) {
    dot_part<S, E, 2, kAll>(query, keys, step, last, d, dim, sums);
    d += 2 * kWide;
  }
  for (; d < dim; d += kWide) dot_part<S, E, 1, kAll>(query, keys, step, last, d, dim, sums);
  return reduce_lanes<float>(sums, [](VF a, VF b) { return a + b; });
}

// Scores of one packed query against kLane keys, rows of `step` from `keys` on; `last` is the last row that exists.
template <class S, class E>
MM_INLINE VF dot_keys(const E* query, const S* keys, int64_t step, int64_t last, int64_t dim) {
  return last >= kLane - 1 ? dot_keys<S, E, true>(query, keys, step, last, dim)
                           : dot_keys<S, E, false>(query, keys, step, last, dim);
}

// A vector of values at one element of the summed dim: of one token, or of two as pairs.
template <class S>
MM_INLINE VF value_vector(const S* p, int64_t, int64_t, int64_t left, float) {
  return load_some(p, left);
}
#if defined(__AVX512BF16__)
MM_INLINE __m512bh value_vector(const BF16* p, int64_t step, int64_t tokens, int64_t left, Pair) {
  const VU32 first = __builtin_convertvector(load_bits(p, left), VU32);
  const VU32 second = tokens > 1 ? __builtin_convertvector(load_bits(p + step, left), VU32) : VU32{};
  return (__m512bh)(first | second << 16);
}
#endif

// out += weights * values for R queries and V vectors of the value's dim, over `tokens` tokens.
template <class S, class E, int R, int V>
MM_INLINE void add_values(const E* weights, int64_t ld, const S* values, int64_t step, int64_t tokens, int64_t left, float* out,
                          int64_t width) {
  constexpr int64_t kEntries = ElementOf<E>::kEntries;
  VF sum[R][V];
#pragma GCC unroll 8
  for (int r = 0; r < R; ++r)
#pragma GCC unroll 4
    for (int v = 0; v < V; ++v) sum[r][v] = VF{};
  for (int64_t t = 0; t < tokens; t += kEntries) {
    typename ElementOf<E>::Vector b[V];
#pragma GCC unroll 4
    for (int v = 0; v < V; ++v) {
      const S* value = values + t * step + v * kLane;
      prefetch_line(value);
      // Several vectors are whole ones: without the copy of a part, a call, sums stay in registers.
      b[v] = value_vector(value, step, tokens - t, V == 1 ? left : kLane, E{});
    }
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r) {
      const auto a = ElementOf<E>::repeat(weights[r * ld + t / kEntries]);
#pragma GCC unroll 4
      for (int v = 0; v < V; ++v) sum[r][v] = ElementOf<E>::multiply_add(a, b[v], sum[r][v]);
    }
  }
#pragma GCC unroll 8
  for (int r = 0; r < R; ++r)
#pragma GCC unroll 4
    for (int v = 0; v < V; ++v) store(out + r * width + v * kLane, load(out + r * width + v * kLane) + sum[r][v]);
}

template <class S, class E, int R>
static void add_values(const E* weights, int64_t ld, const S* values, int64_t step, int64_t tokens, int64_t dim, float* out,
                       int64_t width) {
  int64_t d = 0;
  for (; d + 4 * kLane <= dim; d += 4 * kLane)
    add_values<S, E, R, 4>(weights, ld, values + d, step, tokens, dim - d, out + d, width);
  for (; d < dim; d += kLane) add_values<S, E, R, 1>(weights, ld, values + d, step, tokens, dim - d, out + d, width);
}

// The same for any number of queries: values are read from cache again for every four of them.
template <class S, class E>
static void add_values(int64_t rows, const E* weights, int64_t ld, const S* values, int64_t step, int64_t tokens, int64_t dim,
                       float* out, int64_t width) {
  for (; rows >= 4; rows -= 4, weights += 4 * ld, out += 4 * width)
    add_values<S, E, 4>(weights, ld, values, step, tokens, dim, out, width);
  if (rows == 3) add_values<S, E, 3>(weights, ld, values, step, tokens, dim, out, width);
  if (rows == 2) add_values<S, E, 2>(weights, ld, values, step, tokens, dim, out, width);
  if (rows == 1) add_values<S, E, 1>(weights, ld, values, step, tokens, dim, out, width);
}

}  // namespace manymax::MANYMAX_ISA
