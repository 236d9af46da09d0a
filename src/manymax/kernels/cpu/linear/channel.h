// A decay for each entry of the key: products of queries and keys by sub-chunks of 16 tokens (Yang et al. 2023, arXiv:2312.06635).
// Below a sub-chunk of queries, factors go from key to its start and from there to query, both at most 1, and one product serves;
// within it, each pair has its own running product.
#pragma once

#include "decays.h"

namespace manymax::MANYMAX_ISA {

inline constexpr int64_t kSubRows = (kSub + kStrip - 1) / kStrip * kStrip;  // that products write; those behind are written again

// near = keys before `start` times factors up to the sub-chunk's start, from the same for the sub-chunk before.
static inline void bring_near(const Decays& d, Matrix key, int64_t start, int64_t width, Matrix near) {
  const Matrix factor = d.from_start.from(start - 1);  // of the whole sub-chunk before
  for (int64_t j = 0; j < start - kSub; ++j) times(near.from(j), factor, near.from(j), 1, width);
  times(key.from(start - kSub), d.to_end.from(start - kSub), near.from(start - kSub), kSub, width);
}

// sums[i] += x_i . (key_j decayed from j to i) over V vectors, for j <= i < kSub.
template <int V>
MM_INLINE void pair_products(const Decays& d, Matrix x, Matrix key, int64_t start, int64_t j, int64_t at, VF* sums) {
  VF part[V];
#pragma GCC unroll 4
  for (int v = 0; v < V; ++v) part[v] = load(key.row(start + j) + at + v * kLane);
  for (int64_t i = j;; ++i) {
    VF sum = sums[i];
#pragma GCC unroll 4
    for (int v = 0; v < V; ++v) sum = fma(part[v], load(x.row(start + i) + at + v * kLane), sum);
    sums[i] = sum;
    if (i + 1 == kSub) return;
#pragma GCC unroll 4
    for (int v = 0; v < V; ++v) part[v] *= load(d.each.row(start + i + 1) + at + v * kLane);
  }
}

// The lower triangle of a sub-chunk with itself.
static inline void diagonal_products(const Decays& d, Matrix x, Matrix key, int64_t start, int64_t width, Matrix scores) {
  for (int64_t j = 0; j < kSub; ++j) {
    VF sums[kSub] = {};
    int64_t at = 0;
    for (; at + 4 * kLane <= width; at += 4 * kLane) pair_products<4>(d, x, key, start, j, at, sums);
    for (; at < width; at += kLane) pair_products<1>(d, x, key, start, j, at, sums);
    for (int64_t i = 0; i < kSub; i += kLane) {
      VF part[kLane];
      __builtin_memcpy(part, sums + i, sizeof part);
      const VF all = reduce_lanes<float>(part, [](VF a, VF b) { return a + b; });
      for (int64_t r = 0; r < kLane; ++r) scores.row(start + i + r)[start + j] = all[r];  // sums above the diagonal are 0
    }
  }
}

// scores_ij = sum over d of x_id key_jd, decayed from j to i, for j <= i; 0 above.
static inline void channel_scores(const Decays& d, Matrix x, Matrix key, int64_t rows, const LinearSizes& z, const Room& room,
                                  Matrix scores) {
  clear(scores, z.chunk);
  for (int64_t start = 0; start < rows; start += kSub) {
    if (start > 0) {
      bring_near(d, key, start, z.key_width, room.near);
      transpose(room.near, start, z.key_width, room.keys_across);
      times(x.from(start), d.from_start.from(start), room.scaled.from(start), kSub, z.key_width);
      product<Into::fresh>(room.scaled.from(start), room.keys_across, z.key_width, scores.from(start), kSubRows, start);
    }
    diagonal_products(d, x, key, start, z.key_width, scores);
  }
}

}  // namespace manymax::MANYMAX_ISA
