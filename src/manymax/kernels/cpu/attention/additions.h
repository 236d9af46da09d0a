// Backwards: work on single entries of a tile.
#pragma once

#include "tile.h"

namespace manymax::MANYMAX_ISA {

MM_INLINE void multiply_entries(const Block& at, float* x, const float* by, int64_t ld) {
  for (int64_t r = 0; r < at.rows; ++r)
    for (int64_t c = r * ld; c < r * ld + at.columns; c += kLane) store(x + c, load(x + c) * load(by + c));
}

// Add the tile's gradients of scores to those of an addition, summed where it is broadcast.
static inline void add_to_addition(const Block& at, const OnScores& x, float* sums, const float* d_scores, int64_t ld) {
  const AttentionCall& call = *at.call;
  // The sums lie contiguous in the addition's own shape.
  const int64_t row = x.key ? call.keys : 1, head = x.query ? call.queries * row : row;
  const int64_t batch = x.head ? call.query_heads * head : head;
  float* base = sums + (x.batch ? at.batch * batch : 0) + (x.head ? at.head * head : 0);
  const float by = static_cast<float>(1 / call.temperature);
  const int64_t left = call.keys - at.j, columns = at.columns < left ? at.columns : left;
  for (int64_t r = 0; r < at.rows; ++r) {
    float* to = base + (x.query ? (at.i + r) * row : 0);
    VF total{};
    for (int64_t c = 0; c < columns; c += kLane) {
      const VF d = load(d_scores + r * ld + c) * by;  // hidden entries are 0
      const int64_t n = columns - c;
      if (x.key == 0) {
        total += n >= kLane ? d : keep(first_lanes<float>(n), d);
      } else if (n >= kLane) {
        store(to + at.j + c, load(to + at.j + c) + d);
      } else {
        store(to + at.j + c, n, load(to + at.j + c, n, 0.0f) + d);
      }
    }
    if (x.key == 0) *to += reduce_add(total);
  }
}

static inline void add_to_additions(const Block& at, const float* d_scores, int64_t ld) {
  for (int a = 0; a < kMaxAdditions; ++a)
    if (at.call->d_additions[a]) add_to_addition(at, at.call->additions[a], at.call->d_additions[a], d_scores, ld);
}

#if defined(__AVX512BF16__)
// A tile rounded to bfloat16: `down` as pairs of two rows, and if given `across` as pairs of two columns.
static inline void pair_rows(const Block& at, const float* x, int64_t ld, Pair* down, Pair* across) {
  for (int64_t r = 0; r < at.rows; r += 2) {
    const bool both = r + 1 < at.rows;
    for (int64_t c = 0; c < at.columns; c += kLane) {
      const __m256bh low = _mm512_cvtneps_pbh(load(x + r * ld + c));
      const __m256bh high = _mm512_cvtneps_pbh(both ? load(x + (r + 1) * ld + c) : VF{});
      const VU32 pairs = __builtin_convertvector(bit_cast<VU16>(low), VU32) |
                         __builtin_convertvector(bit_cast<VU16>(high), VU32) << 16;
      __builtin_memcpy(down + r / 2 * ld + c, &pairs, sizeof pairs);
      if (!across) continue;
      __builtin_memcpy(across + (r * ld + c) / 2, &low, sizeof low);
      __builtin_memcpy(across + ((r + 1) * ld + c) / 2, &high, sizeof high);
    }
  }
}
#endif

}  // namespace manymax::MANYMAX_ISA
