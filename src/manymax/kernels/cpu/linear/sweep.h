// What going forwards and going back share: packing a chunk, its decays and values, and the state behind it.
#pragma once

#include "channel.h"
#include "delta.h"
#include "segments.h"

namespace manymax::MANYMAX_ISA {

template <class S>
class Sweep {
 public:
  explicit Sweep(const LinearCall& call) : call_(call), z_(call), tasks_(call, z_) {}

 protected:
  Chunk chunk(int64_t head, int64_t index) const {
    const int64_t first = index * z_.chunk, left = call_.tokens - first;
    return {head / call_.query_heads, head % call_.query_heads, first, left < z_.chunk ? left : z_.chunk};
  }
  int64_t first_chunk(int64_t segment) const { return segment * z_.chunks / tasks_.segments; }
  int64_t key_head(const Chunk& at) const { return at.head / (call_.query_heads / call_.key_heads); }
  bool delta() const { return call_.beta.data != nullptr; }

  void pack(const Tokens& x, const Chunk& at, int64_t head, int64_t dim, Matrix to) const {
    pack_rows(stretch<S>(x, at.batch, head, at.first, at.count, dim), z_.chunk, to.step, 1, to.data);
  }
  // Ask for the rows of a chunk that comes next, while products of this one are computed: packing would wait for each.
  void fetch(const Tokens& x, const Chunk& at, int64_t head, int64_t dim, int64_t ahead) const {
    const int64_t first = at.first + ahead * z_.chunk;
    if (first < 0 || first >= call_.tokens) return;
    const S* data = static_cast<const S*>(x.data) + at.batch * x.batch + head * x.head + first * x.token;
    const int64_t left = call_.tokens - first, count = left < z_.chunk ? left : z_.chunk;
    for (int64_t t = 0; t < count; ++t)
      for (int64_t d = 0; d < dim; d += 64 / static_cast<int64_t>(sizeof(S))) __builtin_prefetch(data + t * x.token + d, 0, 2);
  }
  void write(Matrix from, const Tokens& x, const Chunk& at, int64_t dim) const {
    S* to = static_cast<S*>(const_cast<void*>(x.data)) + at.batch * x.batch + at.head * x.head + at.first * x.token;
    for (int64_t i = 0; i < at.count; ++i)
      for (int64_t d = 0; d < dim; d += kLane) store_some(to + i * x.token + d, dim - d, load(from.row(i) + d));
  }

  // A state from (dim, value_dim) in memory, or zeros; and back.
  void start(const float* from, Matrix state) const {
    clear(state, z_.state_rows);
    for (int64_t r = 0; from && r < call_.dim; ++r) copy(from + r * call_.value_dim, state.row(r), call_.value_dim);
  }
  void finish(Matrix state, float* to) const {
    for (int64_t r = 0; r < call_.dim; ++r) copy(state.row(r), to + r * call_.value_dim, call_.value_dim);
  }
  const float* of_head(const float* states, int64_t head) const {
    return states ? states + head * call_.dim * call_.value_dim : nullptr;
  }

  // Keys, values and decays of a chunk; with the delta rule beta and what its weights are.
  void load_keys(Room& room, const Chunk& at) const {
    pack(call_.key, at, key_head(at), call_.dim, room.key);
    pack(call_.value, at, key_head(at), call_.value_dim, room.value);
    prepare(call_, z_, at, room.decays);
    if (!delta()) return;
    const Tokens& x = call_.beta;
    const float* beta = static_cast<const float*>(x.data) + at.batch * x.batch + at.head * x.head + at.first * x.token;
    for (int64_t t = 0; t < z_.chunk; ++t) room.beta[t] = t < at.count ? beta[t * x.token] : 0;
  }
  // decayed products x_i . k_j for j <= i; `keys_across` holds the key's transpose unless decays go by channel.
  void weigh(Room& room, const Chunk& at, Matrix x, Matrix weights) const {
    if (call_.channels) return channel_scores(room.decays, x, room.key, at.rows(), z_, room, weights);
    product_lower(x, room.keys_across, call_.dim, weights, at.rows());
    decay_lower(room.decays, weights, at.rows());
  }
  void turn_keys(Room& room) const {
    if (!call_.channels) transpose(room.key, z_.chunk, z_.key_width, room.keys_across);
  }
  // What a token writes into the state: its value, or with the delta rule what the state did not know of it.
  Matrix written(const Room& room) const { return delta() ? room.values : room.value; }

  void correct_values(Room& room, const Chunk& at, Matrix state) const {
    weigh(room, at, room.key, room.weights);
    const Matrix read = decayed(room, room.key, room.decays.before, at.rows());
    product<Into::fresh>(read, state, call_.dim, room.error, at.rows(), call_.value_dim);
    combine(room.value, room.error, room.error, at.rows(), z_.value_width, [](VF v, VF known) { return v - known; });
    solve_lower(room.weights, room.beta, at.rows(), call_.value_dim, room.error, room.minus_values);
    scale_error(room, at);
  }
  void scale_error(Room& room, const Chunk& at) const {
    for (int64_t t = 0; t < at.rows(); ++t)
      for (int64_t d = 0; d < z_.value_width; d += kLane)
        store(room.values.row(t) + d, load(room.error.row(t) + d) * splat(room.beta[t]));
  }

  // x times factors of decay; itself where nothing decays.
  Matrix decayed(const Room& room, Matrix x, Matrix factors, int64_t rows) const {
    if (!call_.log_decay.data) return x;
    times(x, factors, room.scaled, rows, z_.key_width);
    return room.scaled;
  }

  // The state behind the chunk: its decayed rows, and keys times values.
  void advance(Room& room, const Chunk& at, Matrix state) const {
    const Matrix kept = decayed(room, room.key, room.decays.after, at.count);
    product<Into::scaled_sum, true>(kept, written(room), at.count, state, round_up(call_.dim, kStrip), call_.value_dim,
                                    room.decays.whole);
  }

  // The first visit of a segment, unless nothing comes behind it.
  void visit(Room& room, const Segments& segments, int64_t task) const {
    const int64_t head = task / tasks_.segments, s = task % tasks_.segments;
    segments.clear(task);
    if (s + 1 == tasks_.segments) return;
    for (int64_t c = first_chunk(s); c < first_chunk(s + 1); ++c) {
      const Chunk at = chunk(head, c);
      load_keys(room, at);
      advance(room, at, segments.added(task));
      segments.shrink(task, room.decays.whole);
    }
  }

  const LinearCall& call_;
  const LinearSizes z_;
  const Tasks tasks_;
};

// A kernel for the call's storage type.
template <template <class> class Kernel>
static void run_linear(const LinearCall& call) {
  if (call.dtype == DType::f32) return Kernel<float>(call).run();
  if (call.dtype == DType::bf16) return Kernel<BF16>(call).run();
  Kernel<F16>(call).run();
}

}  // namespace manymax::MANYMAX_ISA
