// Forwards: scores of a chunk's tokens, block of classes by block, and sums over them while a block is in cache.
#pragma once

#include "../log.h"
#include "../math.h"
#include "room.h"

namespace manymax::MANYMAX_ISA {

MM_INLINE float weight_of(const LossCall& call, int64_t c) { return call.weight ? call.weight[c] : 1.0f; }

// Add biases and cap; `largest` rises.
static inline void finish_scores(const LossCall& call, const ClassBlock& at, int64_t tokens, float* largest) {
  const float cap = static_cast<float>(call.softcap), slow = cap > 0 ? 1 / cap : 0;
  for (int64_t c = 0; c < at.count; ++c) {
    float* row = at.scores + c * tokens;
    const VF bias = splat(call.bias ? call.bias[at.first + c] : 0.0f);
    for (int64_t i = 0; i < tokens; i += kLane) {
      VF x = load(row + i) + bias;
      if (cap > 0) x = tanh(x * slow) * cap;
      store(row + i, x);
      store(largest + i, max(load(largest + i), x));
    }
  }
}

// What a score is less before its exponential: the maximum, or 0 where there is none.
MM_INLINE VF usable(VF largest) { return largest == splat(-kInfinity<float>) ? VF{} : largest; }

// The block joins sums of exponentials, relative to a maximum that may have risen. Four chains hide an addition's time.
static inline void add_exponentials(const ClassBlock& at, int64_t tokens, const float* before, Running& running) {
  for (int64_t i = 0; i < tokens; i += kLane) {
    const VF shift = usable(load(running.largest + i));
    VF sums[4] = {};
    const float* column = at.scores + i;
    int64_t c = 0;
    for (; c + 4 <= at.count; c += 4)
#pragma GCC unroll 4
      for (int u = 0; u < 4; ++u) sums[u] += exp_nonpositive<float>(load(column + (c + u) * tokens) - shift);
    for (; c < at.count; ++c) sums[0] += exp_nonpositive<float>(load(column + c * tokens) - shift);
    const VF old = load(running.sum + i) * exp_nonpositive<float>(load(before + i) - shift);
    store(running.sum + i, old + ((sums[0] + sums[1]) + (sums[2] + sums[3])));
  }
}

// Weighted sums of scores, which label smoothing takes, and sums over given probabilities.
static inline void add_spread(const LossCall& call, const ClassBlock& at, int64_t tokens, Running& running) {
  for (int64_t i = 0; i < tokens; i += kLane) {
    VF sum{};
    for (int64_t c = 0; c < at.count; ++c)
      sum = fma(splat(weight_of(call, at.first + c)), load(at.scores + c * tokens + i), sum);
    store(running.spread + i, load(running.spread + i) + sum);
  }
}

static inline void add_probabilities(const LossCall& call, const ClassBlock& at, int64_t token, int64_t count, int64_t tokens,
                                     Running& running) {
  for (int64_t i = 0; i < count; ++i) {
    const float* given = call.probabilities + (token + i) * call.classes + at.first;
    float mass = 0, picked = 0;
    for (int64_t c = 0; c < at.count; ++c) {
      const float part = given[c] * weight_of(call, at.first + c);
      mass += part;
      // 0 times a score of -inf is none.
      picked += part == 0 ? 0 : part * at.scores[c * tokens + i];
    }
    running.mass[i] += mass, running.picked[i] += picked;
  }
}

static inline void clear_sums(Running& running) {
  for (int64_t i = 0; i < kTokens; ++i) {
    running.largest[i] = -kInfinity<float>;
    running.sum[i] = running.spread[i] = running.mass[i] = running.picked[i] = 0;
  }
}

// What another thread has seen joins; both sums are then relative to the larger maximum.
static inline void join(Running& into, const Running& other) {
  for (int64_t i = 0; i < kTokens; i += kLane) {
    const VF a = load(into.largest + i), b = load(other.largest + i), both = max(a, b), shift = usable(both);
    const VF sum = load(into.sum + i) * exp_nonpositive<float>(a - shift) + load(other.sum + i) * exp_nonpositive<float>(b - shift);
    store(into.largest + i, both), store(into.sum + i, sum);
    store(into.spread + i, load(into.spread + i) + load(other.spread + i));
    store(into.mass + i, load(into.mass + i) + load(other.mass + i));
    store(into.picked + i, load(into.picked + i) + load(other.picked + i));
  }
}

}  // namespace manymax::MANYMAX_ISA
