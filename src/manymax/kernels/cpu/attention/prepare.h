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

// Prepare products in place, rows of `ld`; `slopes`, if given, gets the cap's derivative, 1 - tanh^2.
static inline void prepare(const Block& at, const Scaling& scaling, Sight sight, float factor, float* scores, int64_t ld,
                           float* slopes) {
  const AttentionCall& call = *at.call;
  const VF by = splat(factor), cap = splat(scaling.cap), unit = splat(scaling.addition), hidden = splat(-kInfinity<float>);
  for (int64_t r = 0; r < at.rows; ++r) {
    for (int64_t c = 0; c < at.columns; c += kLane) {
      const int64_t n = call.keys - at.j - c;
      float* p = scores + r * ld + c;
      VF x = load(p) * by;
      if (scaling.cap != 0) {
        const VF t = tanh(x);
        x = t * cap;
        if (slopes) store(slopes + r * ld + c, 1.0f - t * t);
      }
      if (n > 0)
        for (const OnScores& addition : call.additions)
          if (addition.data) x = fma(read_addition(addition, at, at.i + r, at.j + c, n), unit, x);
      if (sight != Sight::all) x = n > 0 ? (seen_from(at, at.i + r, at.j + c, n) ? x : hidden) : hidden;
      store(p, x);
    }
  }
}

}  // namespace manymax::MANYMAX_ISA
