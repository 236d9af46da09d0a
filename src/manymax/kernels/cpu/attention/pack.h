// Copies of query, key and value in the order and type in which products read them: float, or pairs of bfloat16 where the
// machine multiplies those. Entries behind the end are 0.
#pragma once

#include "../convert.h"
#include "../lanes.h"
#include "../types.h"
#include "products.h"

namespace manymax::MANYMAX_ISA {

static inline int64_t round_up(int64_t n, int64_t unit) { return (n + unit - 1) / unit * unit; }

// Tokens [first, first + count) of one head: `data` points at the first, `step` entries lie between two.
template <class S>
struct Stretch {
  const S* data;
  int64_t step;
  int64_t count;
  int64_t dim;
};

template <class S>
MM_INLINE Stretch<S> stretch(const Tokens& x, int64_t batch, int64_t head, int64_t first, int64_t count, int64_t dim) {
  const int64_t offset = batch * x.batch + head * x.head + first * x.token;
  return {static_cast<const S*>(x.data) + offset, x.token, count, dim};
}

MM_INLINE float as_float(float x) { return x; }
MM_INLINE float as_float(BF16 x) { return bit_cast<float>(static_cast<uint32_t>(x.bits) << 16); }
MM_INLINE float as_float(F16 x) {
#if defined(__F16C__)
  return _cvtsh_ss(x.bits);
#else
  return static_cast<float>(bit_cast<Half>(x.bits));
#endif
}

// The n > 0 entries left of a row, at most kLane of them.
template <class S>
MM_INLINE VF load_some(const S* p, int64_t n) {
  return n >= kLane ? load_as(p) : load_as(p, n);
}

template <class S>
MM_INLINE void store_some(S* p, int64_t n, VF x) {
  if (n >= kLane) return store_as(p, x);
  store_as(p, n, x);
}

// Row-major, `width` floats a row, for rows [0, rows), times `factor`.
template <class S>
static void pack_rows(Stretch<S> x, int64_t rows, int64_t width, float factor, float* out) {
  const VF by = splat(factor);
  for (int64_t i = 0; i < rows; ++i, out += width) {
    const S* in = x.data + i * x.step;
    const int64_t dim = i < x.count ? x.dim : 0;
    for (int64_t d = 0; d < width; d += kLane) {
      const int64_t left = dim - d;
      store(out + d, left > 0 ? load_some(in + d, left) * by : VF{});
    }
  }
}

// The same as pairs along a row: width / 2 pairs.
static inline void pack_rows(Stretch<BF16> x, int64_t rows, int64_t width, float, Pair* out) {
  for (int64_t i = 0; i < rows; ++i, out += width / 2) {
    const int64_t dim = i < x.count ? x.dim : 0;
    __builtin_memcpy(out, x.data + i * x.step, static_cast<size_t>(dim) * sizeof(BF16));
    __builtin_memset(reinterpret_cast<char*>(out) + dim * 2, 0, static_cast<size_t>(width - dim) * 2);
  }
}

// Transpose kLane vectors: element k of rows[i] becomes element i of rows[k].
template <int kStep = 1>
MM_INLINE void transpose(VF (&rows)[kLane]) {
  if constexpr (kStep < kLane) {
    using Lanes = typename CountTo<kLane>::type;
#pragma GCC unroll 16
    for (int i = 0; i < kLane; ++i) {
      if (i & kStep) continue;
      const VF a = rows[i], b = rows[i + kStep];
      rows[i] = low_lanes<VF, kStep, kLane>(a, b, Lanes{});
      rows[i + kStep] = high_lanes<VF, kStep, kLane>(a, b, Lanes{});
    }
    transpose<kStep * 2>(rows);
  }
}

// Panels of kPanel tokens, each with one row of kPanel elements for every element of the dim: what scores are computed from.
template <class S>
static void pack_panels(Stretch<S> x, int64_t tokens, float* out) {
  for (int64_t j = 0; j < tokens; j += kPanel, out += x.dim * kPanel) {
    for (int64_t part = 0; part < kPanel; part += kLane) {
      for (int64_t d = 0; d < x.dim; d += kLane) {
        VF rows[kLane];
        const int64_t left = x.dim - d;
#pragma GCC unroll 16
        for (int i = 0; i < kLane; ++i) {
          const int64_t token = j + part + i;
          const S* in = x.data + token * x.step + d;
          rows[i] = token >= x.count ? VF{} : load_some(in, left);
        }
        transpose(rows);
        for (int i = 0; i < kLane && i < left; ++i) store(out + (d + i) * kPanel + part, rows[i]);
      }
    }
  }
}

static inline void pack_panels(Stretch<BF16> x, int64_t tokens, Pair* out) {
  const int64_t pairs = (x.dim + 1) / 2;
  for (int64_t j = 0; j < tokens; j += kPanel, out += pairs * kPanel) {
    for (int64_t part = 0; part < kPanel; part += kLane) {
      for (int64_t p = 0; p < pairs; p += kLane) {
        VF rows[kLane];
        const int64_t left = x.dim - 2 * p;
#pragma GCC unroll 16
        for (int i = 0; i < kLane; ++i) {
          const int64_t token = j + part + i;
          const BF16* in = x.data + token * x.step + 2 * p;
          rows[i] = VF{};
          if (token >= x.count) continue;
          if (left >= 2 * kLane) {
            __builtin_memcpy(&rows[i], in, sizeof(VF));
          } else {
            __builtin_memcpy(&rows[i], in, static_cast<size_t>(left) * sizeof(BF16));
          }
        }
        transpose(rows);
        for (int i = 0; i < kLane && p + i < pairs; ++i)
          __builtin_memcpy(out + (p + i) * kPanel + part, &rows[i], sizeof(VF));
      }
    }
  }
}

// Rows of tokens, as B of a product that sums over tokens: floats row by row, or pairs of two tokens.
template <class S>
static void pack_tokens(Stretch<S> x, int64_t tokens, int64_t width, float* out) {
  pack_rows(x, tokens, width, 1, out);
}

// Up to kLane entries as they are; 0 for the rest.
MM_INLINE VU16 load_bits(const BF16* p, int64_t n) {
  if (n >= kLane) return load_16(p);
  VU16 x{};
  if (n > 0) __builtin_memcpy(&x, p, static_cast<size_t>(n) * sizeof(BF16));
  return x;
}

static inline void pack_tokens(Stretch<BF16> x, int64_t tokens, int64_t width, Pair* out) {
  for (int64_t i = 0; i < tokens; i += 2, out += width) {
    const BF16* in = x.data + i * x.step;
    for (int64_t d = 0; d < width; d += kLane) {
      const int64_t left = x.dim - d;
      const VU16 first = i < x.count ? load_bits(in + d, left) : VU16{};
      const VU16 second = i + 1 < x.count ? load_bits(in + x.step + d, left) : VU16{};
      const VU32 both = __builtin_convertvector(first, VU32) | __builtin_convertvector(second, VU32) << 16;
      __builtin_memcpy(out + d, &both, sizeof both);
    }
  }
}

}  // namespace manymax::MANYMAX_ISA
