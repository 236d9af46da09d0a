// The factors of a chunk (`Decays` in room.h).
#pragma once

#include "../math.h"
#include "room.h"

namespace manymax::MANYMAX_ISA {

static inline const float* log_decay_at(const LinearCall& call, const Chunk& at, int64_t t) {
  const Tokens& x = call.log_decay;
  return static_cast<const float*>(x.data) + at.batch * x.batch + at.head * x.head + (at.first + t) * x.token;
}

static inline void fill(float* to, float x, int64_t count) {
  for (int64_t d = 0; d < count; d += kLane) store(to + d, splat(x));
}

static inline void read_scalars(const LinearCall& call, const Chunk& at, int64_t tokens, double* each) {
  for (int64_t t = 0; t < tokens; ++t) each[t] = t < at.count && call.log_decay.data ? *log_decay_at(call, at, t) : 0;
  for (int64_t t = 0; t < tokens; t += kLanes<double>) store(each + t, exp<double>(load(each + t)));
}

// Products in double: a factor rounded to float32 is off by 3e-8, in the same direction for all tokens of a fixed decay.
static inline void prepare_scalar(const LinearCall& call, const LinearSizes& z, const Chunk& at, Decays& d) {
  double* const each = reinterpret_cast<double*>(d.each.data);
  double* const row = each + z.chunk;  // of `between`
  read_scalars(call, at, z.chunk, each);
  double before = 1, after = 1;
  for (int64_t t = 0; t < z.chunk; ++t) fill(d.before.row(t), static_cast<float>(before *= each[t]), z.key_width);
  for (int64_t t = z.chunk - 1; t >= 0; after *= each[t--]) fill(d.after.row(t), static_cast<float>(after), z.key_width);
  for (int64_t r = 0; r < z.state_rows; ++r) d.whole[r] = static_cast<float>(before);
  if (d.head < 0) clear(d.between, z.chunk);
  for (int64_t i = 0; i < z.chunk; ++i) {
    for (int64_t j = 0; j < i; ++j) d.between.row(i)[j] = static_cast<float>(row[j] *= each[i]);
    d.between.row(i)[i] = 1, row[i] = 1;
  }
}

// Sums of logarithms within a sub-chunk, and products of their few exponentials over the chunk.
static inline void prepare_channels(const LinearCall& call, const LinearSizes& z, const Chunk& at, Decays& d) {
  for (int64_t k = 0; k < z.key_width; k += kLane) {
    const auto logs = [&](int64_t t) {
      return t < at.count ? load_some(log_decay_at(call, at, t) + k, call.dim - k) : VF{};
    };
    VF before = splat(1.0f), after = before;
    for (int64_t start = 0; start < z.chunk; start += kSub) {
      VF sum{}, factor{};
      for (int64_t t = start; t < start + kSub; ++t) {
        const VF log = logs(t);
        store(d.each.row(t) + k, exp<float>(log));
        store(d.from_start.row(t) + k, factor = exp<float>(sum += log));
        store(d.before.row(t) + k, before * factor);
      }
      before *= factor;
    }
    store(d.whole + k, before);
    for (int64_t start = z.chunk - kSub; start >= 0; start -= kSub) {
      VF sum{};
      for (int64_t t = start + kSub - 1; t >= start; sum += logs(t--)) {
        const VF factor = exp<float>(sum);
        store(d.to_end.row(t) + k, factor);
        store(d.after.row(t) + k, after * factor);
      }
      after *= load(d.from_start.row(start + kSub - 1) + k);
    }
  }
  for (int64_t r = z.key_width; r < z.state_rows; ++r) d.whole[r] = 0;
}

// Factors for a chunk; those of a decay that is the same for all tokens of a head stay.
static inline void prepare(const LinearCall& call, const LinearSizes& z, const Chunk& at, Decays& d) {
  const int64_t head = at.batch * call.query_heads + at.head;
  const bool fixed = !call.log_decay.data || call.log_decay.token == 0;
  if (fixed && d.head == head && d.count == at.count) return;
  if (call.channels) {
    prepare_channels(call, z, at, d);
  } else {
    prepare_scalar(call, z, at, d);
  }
  d.head = head, d.count = at.count;
}

// scores *= decays between their tokens; 0 above the diagonal, whatever was there.
static inline void decay_lower(const Decays& d, Matrix scores, int64_t rows) {
  for (int64_t i = 0; i < rows; ++i) {
    for (int64_t j = 0; j < reach(i); j += kLane) {
      const VF factor = load(d.between.row(i) + j);
      store(scores.row(i) + j, factor != VF{} ? load(scores.row(i) + j) * factor : VF{});
    }
  }
}

}  // namespace manymax::MANYMAX_ISA
