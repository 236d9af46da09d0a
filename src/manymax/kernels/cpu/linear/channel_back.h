// A decay for each entry of the key, backwards: gradients of the scores of `channel_scores` become gradients of queries and keys,
// by the same sub-chunks. Pairs i = j, which no decay touches, come last, so that the rest gives the gradient of log_decay.
#pragma once

#include "back_room.h"
#include "channel.h"

namespace manymax::MANYMAX_ISA {

// Gradients of a sub-chunk's queries from pairs i > j within it.
static inline void diagonal_queries_back(const BackRoom& room, int64_t start, int64_t width, Matrix d_x) {
  const Matrix key = room.key.from(start), each = room.decays.each.from(start), slopes = room.d_weights.at(start, start);
  for (int64_t v = 0; v < width; v += kLane) {
    for (int64_t j = 0; j + 1 < kSub; ++j) {
      VF part = load(key.row(j) + v);
      for (int64_t i = j + 1; i < kSub; ++i) {
        part *= load(each.row(i) + v);
        store(d_x.row(i) + v, fma(splat(slopes.row(i)[j]), part, load(d_x.row(i) + v)));
      }
    }
  }
}

// And of its keys.
static inline void diagonal_keys_back(const BackRoom& room, int64_t start, int64_t width, Matrix d_key) {
  const Matrix x = room.query.from(start), each = room.decays.each.from(start), slopes = room.d_weights.at(start, start);
  for (int64_t v = 0; v < width; v += kLane) {
    for (int64_t j = 0; j + 1 < kSub; ++j) {
      VF sum{};
      for (int64_t i = kSub - 1; i > j; --i)
        sum = fma(splat(slopes.row(i)[j]), load(x.row(i) + v), sum) * load(each.row(i) + v);
      store(d_key.row(j) + v, load(d_key.row(j) + v) + sum);
    }
  }
}

static inline void channel_queries_back(const BackRoom& room, int64_t rows, int64_t width, Matrix d_x) {
  const Decays& d = room.decays;
  clear(d_x, kSub);
  for (int64_t start = 0; start < rows; start += kSub) {
    const Matrix part = d_x.from(start);
    if (start > 0) {
      bring_near(d, room.key, start, width, room.near);
      product<Into::fresh>(room.d_weights.from(start), room.near, start, part, kSubRows, width);
      times(part, d.from_start.from(start), part, kSub, width);
    }
    diagonal_queries_back(room, start, width, part);
  }
}

// From the last sub-chunk on; `sums` are gradients of all keys before its start, relative to that.
static inline void channel_keys_back(const BackRoom& room, int64_t rows, int64_t width, Matrix sums, Matrix d_key) {
  const Decays& d = room.decays;
  const int64_t last = (rows - 1) / kSub * kSub;
  clear(sums, last);
  clear(d_key.from(last), kSub);
  diagonal_keys_back(room, last, width, d_key.from(last));
  for (int64_t start = last; start > 0; start -= kSub) {
    const int64_t before = start - kSub;
    if (start < last)
      for (int64_t j = 0; j < start; ++j) times(sums.from(j), d.from_start.from(start + kSub - 1), sums.from(j), 1, width);
    times(room.query.from(start), d.from_start.from(start), room.scaled.from(start), kSub, width);
    product<Into::sum, true>(room.d_weights.from(start), room.scaled.from(start), kSub, sums, start, width);
    times(sums.from(before), d.to_end.from(before), d_key.from(before), kSub, width);
    diagonal_keys_back(room, before, width, d_key.from(before));
  }
}

// d_query and d_key += what gradients of scores, `room.d_weights`, give; what passes each token is added to `room.read`.
static inline void channel_back(const BackRoom& room, int64_t rows, int64_t width) {
  const Matrix d_x = room.near_gradient, d_key = room.through_state;
  channel_queries_back(room, rows, width, d_x);
  add(d_x, room.d_query, rows, width);
  times(d_x, room.query, d_x, rows, width);
  add(d_x, room.read, rows, width);
  channel_keys_back(room, rows, width, d_x, d_key);
  add(d_key, room.d_key, rows, width);
  for (int64_t i = 0; i < rows; ++i) {
    const float slope = room.d_weights.row(i)[i];
    for (int64_t v = 0; v < width; v += kLane)
      store(room.read.row(i) + v, fma(-load(d_key.row(i) + v), load(room.key.row(i) + v), load(room.read.row(i) + v)));
    add_scaled(slope, room.key.row(i), room.d_query.row(i), width);
    add_scaled(slope, room.query.row(i), room.d_key.row(i), width);
  }
}

}  // namespace manymax::MANYMAX_ISA
