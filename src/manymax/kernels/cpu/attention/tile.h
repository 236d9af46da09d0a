// What a map sees of attention: a tile of scores to turn into weights, and what is known of its rows.
#pragma once

#include "dropout.h"
#include "prepare.h"

namespace manymax::MANYMAX_ISA {

inline constexpr int kRows = 96;  // queries of a block: 16 strips, whose state and scores stay in the second-level cache

// A tile of a block's scores. Weights go where products with values read them: float over the scores, or pairs beside them.
template <class E>
struct Tile {
  Block at;
  float factor;  // scores are still to be multiplied by it; 1 for floats
  float* scores;
  int64_t ld;
  Pair* pairs;    // of columns 2 p and 2 p + 1, ld / 2 a row
  float* scratch;  // ld + 64 floats, for maps that see whole rows
  const Dropout* dropout;  // null for none

  MM_MEMBER VF score(int64_t r, int64_t c) const {
    const VF x = load(scores + r * ld + c);
    if constexpr (ElementOf<E>::kEntries == 1) return x;
    return x * factor;
  }
  MM_MEMBER void put(int64_t r, int64_t c, VF weight) const {
#if defined(__AVX512BF16__)
    if constexpr (ElementOf<E>::kEntries == 2) {
      const __m256bh narrow = _mm512_cvtneps_pbh(weight);
      __builtin_memcpy(reinterpret_cast<BF16*>(pairs) + r * ld + c, &narrow, sizeof narrow);
      return;
    }
#endif
    store(scores + r * ld + c, weight);
  }
  // Backwards all stay floats.
  MM_MEMBER void put_back(int64_t r, int64_t c, VF weight) const { store(scores + r * ld + c, weight); }
  RowDropout row_dropout(int64_t r) const { return {*dropout, *at.call, at.batch, at.head, at.i + r}; }
};

// A block's rows forwards.
struct RowState {
  alignas(64) float largest[kRows];  // of the scores' sizes so far; -inf for none
  alignas(64) float shift[kRows];    // what numerators are relative to; pointwise maps keep at(n) here
  alignas(64) float change[kRows];   // from the shift before to this one
  alignas(64) float sums[kRows][kLane];  // of numerators, lane by lane
  bool changed;                      // whether a change is not 1
  float rises[kRows], rescales[kRows];  // of the claim flash-attention-4: how often the largest grew, and the shift with it

  MM_MEMBER float total(int64_t r) const { return reduce_add(load(sums[r])); }
};

// What finishing a row leaves: what its sum of values is multiplied by, two numbers that `back` will need, and the logarithm of the
// denominator.
struct RowResult {
  float factor, shift, kept, lse;
};

// The score of a head's sink in the map's unit; -inf for none.
MM_INLINE float sink_of(const AttentionCall& call, const Scaling& scaling, int64_t head) {
  return call.sinks ? call.sinks[head] * scaling.addition : -kInfinity<float>;
}

// A block's rows backwards: where their numbers begin.
struct RowGradients {
  float* shift;
  float* kept;    // of ratio maps 1 / total
  float* share;   // what every weight's gradient loses through the total
  float *sum, *dot;  // of threshold maps' slopes, and of these with the weights' gradients
};

// A map, for tiles of elements E.
template <class E>
struct Weigher {
  Scaling scaling;
  explicit Weigher(const Scaling& scaling) : scaling(scaling) {}
  // Whether `weigh` needs a tile with all keys that its rows see.
  virtual bool whole_rows() const { return false; }
  // Begin the rows of a block.
  virtual void start(const Block& at, RowState& rows) const = 0;
  // Turn scores into weights, or numerators relative to rows.shift.
  virtual void weigh(const Tile<E>& tile, RowState& rows) const = 0;
  virtual RowResult finish(const RowState& rows, int64_t r) const = 0;
  // Turn scores into weights (dropped, if so) and d_weights, rows of the same ld, into gradients of the map's input.
  virtual void back(const Tile<E>& tile, const RowGradients& rows, float* d_weights) const = 0;
  // The gradient of a sink, an entry of a row without a value.
  virtual float sink_gradient(float sink, const RowGradients& row) const = 0;
  // Whether `sum` must see every tile before `back` does.
  virtual bool visits_twice() const { return false; }
  virtual void sum(const Tile<E>&, const RowGradients&, const float*) const {}
};

}  // namespace manymax::MANYMAX_ISA
