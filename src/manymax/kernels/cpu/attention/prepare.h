// From products q . k to a map's input: softcap, additions, what is hidden. Most blocks need none of it: then the map's own loop
// multiplies by the factor.
#pragma once

#include "../log.h"
#include "sight.h"

namespace manymax::MANYMAX_ISA {

// What turns products into input. A map may read scores in a unit of its own (softmax in 1 / ln 2, so that it needs 2^x alone).
struct Scaling {
  float product;   // what products are multiplied by, to give the input or with a cap what tanh takes
  float cap;       // what tanh is multiplied by; 0 without a softcap
  float addition;  // what additions are multiplied by
  float to_query;  // from gradients of capless inputs in units of 1 to gradients of products

  Scaling(const AttentionCall& call, double unit)
      : product(static_cast<float>(call.softcap ? call.scale / call.softcap : call.scale * unit / call.temperature)),
        cap(static_cast<float>(call.softcap * unit / call.temperature)),
        addition(static_cast<float>(unit / call.temperature)),
        to_query(static_cast<float>(call.scale / call.temperature)) {}
};

// Whether a block's scores have to be prepared.
MM_INLINE bool needs_preparing(const AttentionCall& call, const Scaling& scaling, Sight sight) {
  return sight != Sight::all || scaling.cap != 0 || call.additions[0].data;
}

// Scale a row, and cap it; `slopes`, if given, gets the cap's derivative, 1 - tanh^2.
MM_INLINE void scale_row(const Scaling& scaling, float factor, int64_t n, float* row, float* slopes) {
  const VF by = splat(factor), cap = splat(scaling.cap);
  for (int64_t c = 0; c < n; c += kLane) {
    VF x = load(row + c) * by;
    if (scaling.cap != 0) {
      const VF t = tanh(x);
      x = t * cap;
      if (slopes) store(slopes + c, 1.0f - t * t);
    }
    store(row + c, x);
  }
}

// Add a row of an addition, S in memory; -inf hides, whatever the score. The next tile's part of the row is fetched meanwhile: rows
// lie far apart, which the machine does not foresee.
template <class S>
MM_INLINE void add_row(const S* p, int64_t step, float unit, int64_t n, float* row) {
  const VF by = splat(unit), hidden = splat(-kInfinity<float>);
  for (int64_t c = 0; c < n; c += kLane) {
    __builtin_prefetch(p + (c + n) * step);
    const VF a = read_as(p + c * step, step, n - c);
    store(row + c, a == hidden ? hidden : fma(a, by, load(row + c)));
  }
}

MM_INLINE void add_row(const Block& at, const OnScores& x, int64_t r, float unit, int64_t n, float* row) {
  const int64_t i = at.i + r;
  if (x.dtype == DType::f32) return add_row(entry<float>(x, at, i, at.j), x.key, unit, n, row);
  if (x.dtype == DType::bf16) return add_row(entry<BF16>(x, at, i, at.j), x.key, unit, n, row);
  return add_row(entry<F16>(x, at, i, at.j), x.key, unit, n, row);
}

// Put -inf where query at.i + r does not see.
MM_INLINE void hide_row(const Block& at, int64_t r, int64_t n, float* row) {
  const AttentionCall& call = *at.call;
  const VF hidden = splat(-kInfinity<float>);
  if (call.mask.data) {
    const uint8_t* mask = entry<uint8_t>(call.mask, at, at.i + r, at.j);
    for (int64_t c = 0; c < n; c += kLane) {
      __builtin_prefetch(mask + (c + n) * call.mask.key);
      store(row + c, read_mask(mask + c * call.mask.key, call.mask.key, n - c) ? load(row + c) : hidden);
    }
  }
  const Range band = band_of(call, at.i + r, at.j, at.columns);
  for (int64_t c = 0; c < band.first; c += kLane)
    store(row + c, first_lanes<float>(band.first - c) ? hidden : load(row + c));
  for (int64_t c = band.last / kLane * kLane; c < at.columns; c += kLane)
    store(row + c, first_lanes<float>(band.last - c) ? load(row + c) : hidden);
}

// Prepare products in place, rows of `ld`.
static inline void prepare(const Block& at, const Scaling& scaling, Sight sight, float factor, float* scores, int64_t ld,
                           float* slopes) {
  const AttentionCall& call = *at.call;
  const int64_t left = call.keys - at.j, n = at.columns < left ? at.columns : left;
  for (int64_t r = 0; r < at.rows; ++r) {
    float* row = scores + r * ld;
    if (factor != 1 || scaling.cap != 0) scale_row(scaling, factor, at.columns, row, slopes ? slopes + r * ld : nullptr);
    for (const OnScores& x : call.additions)
      if (x.data) add_row(at, x, r, scaling.addition, n, row);
    if (sight != Sight::all) hide_row(at, r, n, row);
  }
}

}  // namespace manymax::MANYMAX_ISA
