// The gradient of log_decay: in parts, as a chunk's other gradients come along, and their sum over the tokens that each passes.
#pragma once

#include "back_room.h"

namespace manymax::MANYMAX_ISA {

// Keys that the state behind the chunk keeps, and the state that goes through.
static inline void keep_decay(const LinearCall& call, const LinearSizes& z, const Chunk& at, Matrix state, BackRoom& room) {
  for (int64_t r = 0; r < z.key_width; ++r)
    room.through[r] = room.decays.whole[r] * dot(state.row(r), room.d_state.row(r), call.value_dim);
  if (call.channels) return times(room.key, room.d_key, room.kept, at.rows(), z.key_width);
  for (int64_t t = 0; t < at.count; ++t) room.kept.data[t] = dot(room.key.row(t), room.d_key.row(t), z.key_width);
}

// What `x` reads of the state before the chunk, and with `weights` of its tokens. Into::sum: keys of the delta rule, after queries.
template <Into kInto>
static void read_decay(const LinearCall& call, const LinearSizes& z, const Chunk& at, Matrix x, Matrix weights, BackRoom& room) {
  if (call.channels) return times(x, room.through_state, room.read, at.rows(), z.key_width);
  for (int64_t t = 0; t < at.count; ++t) {
    const float read = dot(x.row(t), room.through_state.row(t), z.key_width);
    room.read.data[t] = kInto == Into::sum ? room.read.data[t] + read : read;
    for (int64_t j = 0; j < reach(t); j += kLane) {
      const VF pair = load(weights.row(t) + j) * load(room.d_weights.row(t) + j);
      store(room.pairs.row(t) + j, kInto == Into::sum ? load(room.pairs.row(t) + j) + pair : pair);
    }
  }
}

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

// The same for each channel. `read` has, beside the outputs' part, query times gradient less key times gradient of the pairs
// i > j within the chunk: their sum from t on is what passes t. What cancels is of the size of what stays, since pairs i = j,
// which no decay touches, are left out.
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

static inline void finish_decay(const LinearCall& call, const Chunk& at, const BackRoom& room) {
  const int64_t row = (at.batch * call.query_heads + at.head) * call.tokens + at.first;
  if (call.channels) return sum_passing_channels(room, at.count, call.dim, call.d_log_decay + row * call.dim);
  float through = 0;
  for (int64_t r = 0; r < call.dim; ++r) through += room.through[r];
  sum_passing(room, at.count, through, call.d_log_decay + row);
}

}  // namespace manymax::MANYMAX_ISA
