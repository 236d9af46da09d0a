// Backwards: one thread's memory beside what it needs forwards, and the gradients of log_decay.
#pragma once

#include "segments.h"
#include "decays.h"

namespace manymax::MANYMAX_ISA {

struct BackRoom : Room {
  Matrix d_out, d_query, d_key, d_values;
  Matrix values_across, state_across, d_state_across;  // transposed
  Matrix d_state;
  Matrix d_weights, pairs;    // gradients of scores; these times the scores, from which the gradient of log_decay comes
  Matrix through_state;       // gradients of queries by way of the state
  Matrix near_gradient;       // per channel: gradients relative to a sub-chunk's start
  Matrix read, kept;          // gradients of log_decay from outputs that read the state and from keys that it keeps
  float* through;             // and from what goes through the whole chunk
  float* columns;             // scratch of `sum_passing`

  BackRoom(Carver& carver, const LinearCall& call, const LinearSizes& z)
      : Room(carver, call, z),
        d_out(carver.take(z.chunk, z.value_width)),
        d_query(carver.take(z.chunk, z.key_width)),
        d_key(carver.take(z.chunk, z.key_width)),
        d_values(carver.take(z.chunk, z.value_width)),
        values_across(carver.take(z.value_width, z.chunk)),
        state_across(carver.take(z.value_width, z.key_width)),
        d_state_across(carver.take(z.value_width, z.key_width)),
        d_state(carver.take(z.state_rows, z.value_width)),
        d_weights(carver.take(z.chunk + kLane, z.chunk)),
        pairs(carver.take(z.chunk, z.chunk)),
        through_state(carver.take(z.chunk, z.key_width)),
        near_gradient(carver.take(call.channels ? z.chunk + kLane : 0, z.key_width)),
        read(carver.take(z.chunk, call.channels ? z.key_width : 1)),
        kept(carver.take(z.chunk, call.channels ? z.key_width : 1)),
        through(carver.take(z.key_width)),
        columns(carver.take(z.chunk)) {}
};

// The gradient of log_decay at t is the sum of all that passes t: of pairs (i, j) with j < t <= i, of outputs i >= t that read the
// state before the chunk, of keys j < t that the state behind it keeps, and of what goes through the whole chunk. Here each term is
// added as it is: the difference of two cumulative sums, which is shorter, leaves nothing but rounding where decays are strong.
static inline void sum_passing(const BackRoom& room, int64_t count, float through, float* to) {
  float behind = 0, before = through;
  __builtin_memset(room.columns, 0, static_cast<size_t>(round_up(count, kLane)) * sizeof(float));
  for (int64_t t = count - 1; t >= 0; --t) {
    VF passing{};
    for (int64_t j = 0; j <= t; j += kLane) {
      const VF sum = load(room.columns + j) + load(room.pairs.row(t) + j);
      store(room.columns + j, sum);
      passing += t - j >= kLane ? sum : (first_lanes<float>(t - j) ? sum : VF{});
    }
    to[t] = reduce_add(passing) + (behind += room.read.data[t]);
  }
  for (int64_t t = 0; t < count; before += room.kept.data[t++]) to[t] += before;
}

// The same for each channel. `read` has, beside the outputs' part, query times gradient less key times gradient of the pairs within the
// chunk, each with i > j: their sum from t on is what passes t. What cancels is of the size of what stays, since pairs i = j are left out.
static inline void sum_passing_channels(const BackRoom& room, int64_t count, int64_t dim, float* to) {
  for (int64_t d = 0; d < dim; d += kLane) {
    VF behind{}, before = load(room.through + d);
    for (int64_t t = count - 1; t >= 0; --t) {
      behind += load(room.read.row(t) + d);
      store_some(to + t * dim + d, dim - d, behind);
    }
    for (int64_t t = 0; t < count; before += load(room.kept.row(t++) + d))
      store_some(to + t * dim + d, dim - d, load_some(to + t * dim + d, dim - d) + before);
  }
}

}  // namespace manymax::MANYMAX_ISA
