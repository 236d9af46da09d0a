// Backwards: states before all chunks forwards, then chunks from the last to the first with the gradient of the state carried
// along. The delta rule is a recurrence over other values, whose keys read the state as queries do: the same steps go back through both.
#pragma once

#include "channel_back.h"
#include "decay_back.h"
#include "sweep.h"

namespace manymax::MANYMAX_ISA {

template <class S>
class LinearBackward : Sweep<S> {
  using Base = Sweep<S>;
  using Base::call_, Base::z_, Base::tasks_;

 public:
  explicit LinearBackward(const LinearCall& call) : Base(call) {}

  void run() {
    Arena arena;
    const int64_t size = size_of<BackRoom>(call_, z_), rooms = arena.reserve<float>(size, tasks_.threads);
    const int64_t segments = arena.reserve<float>(tasks_.segments > 1 ? Segments::size(tasks_, z_) : 0);
    const int64_t longest = z_.chunks / tasks_.segments + 1, kept = longest * stored();
    const int64_t stores = arena.reserve<float>(kept, tasks_.threads);
    arena.allocate();
    segments_ = Segments(arena.at<float>(segments), tasks_, z_);
    Queue visits, sweeps;
    parallel(static_cast<int>(tasks_.threads), [&](const Team& team) {
      Carver carver(arena.at<float>(rooms, size, team.rank));
      BackRoom room(carver, call_, z_);
      int64_t task;
      if (tasks_.segments > 1) {
        while (visits.next(tasks_.count(), task)) {
          this->visit(room, segments_, task);
          visit_back(room, task);
        }
        team.barrier();
      }
      while (sweeps.next(tasks_.count(), task)) segment(room, task, arena.at<float>(stores, kept, team.rank));
    });
  }

 private:
  // What is kept of a chunk: the state before it, and what the delta rule wrote.
  int64_t stored() const { return z_.state() + (this->delta() ? z_.chunk * z_.value_width : 0); }
  Matrix stored_state(float* memory) const { return {memory, z_.value_width}; }
  Matrix stored_error(float* memory) const { return {memory + z_.state(), z_.value_width}; }

  void load_queries(BackRoom& room, const Chunk& at) const {
    this->pack(call_.query, at, at.head, call_.dim, room.query);
    this->pack(call_.d_out, at, at.head, call_.value_dim, room.d_out);
  }

  // The gradient of the state before a chunk from that behind it, as far as `x` reads the state, with `d_read` of what it reads.
  template <Into kInto>
  void retreat(BackRoom& room, const Chunk& at, Matrix x, Matrix d_read, Matrix d_state) const {
    const Matrix read = this->decayed(room, x, room.decays.before, at.count);
    product<kInto, true>(read.backwards(at.count), d_read.backwards(at.count), at.count, d_state,
                         round_up(call_.dim, kStrip), call_.value_dim, room.decays.whole);
  }

  void visit_back(BackRoom& room, int64_t task) const {
    const int64_t head = task / tasks_.segments, s = task % tasks_.segments;
    for (int64_t c = this->first_chunk(s + 1) - 1; s > 0 && c >= this->first_chunk(s); --c) {
      const Chunk at = this->chunk(head, c);
      prepare(call_, z_, at, room.decays);
      load_queries(room, at);
      retreat<Into::scaled_sum>(room, at, room.query, room.d_out, segments_.d_added(task));
      if (s + 1 == tasks_.segments) segments_.shrink(task, room.decays.whole);
    }
  }

  void segment(BackRoom& room, int64_t task, float* memory) const {
    const int64_t head = task / tasks_.segments, s = task % tasks_.segments, first = this->first_chunk(s);
    this->start(this->of_head(call_.initial_state, head), room.state);
    for (int64_t before = task - s; before < task; ++before) segments_.join(before, segments_.added(before), room.state);
    for (int64_t c = first; c < this->first_chunk(s + 1); ++c) keep(room, this->chunk(head, c), memory + (c - first) * stored());
    this->start(this->of_head(call_.d_final_state, head), room.d_state);
    for (int64_t behind = task - s + tasks_.segments - 1; behind > task; --behind)
      segments_.join(behind, segments_.d_added(behind), room.d_state);
    for (int64_t c = this->first_chunk(s + 1) - 1; c >= first; --c)
      chunk_back(room, this->chunk(head, c), memory + (c - first) * stored());
    if (s == 0 && call_.d_initial_state)
      this->finish(room.d_state, const_cast<float*>(this->of_head(call_.d_initial_state, head)));
  }

  void keep(BackRoom& room, const Chunk& at, float* memory) const {
    copy(room.state.data, memory, z_.state());
    this->load_keys(room, at);
    this->fetch(call_.key, at, this->key_head(at), call_.dim, 1);
    this->fetch(call_.value, at, this->key_head(at), call_.value_dim, 1);
    if (this->delta()) {
      this->turn_keys(room);
      this->correct_values(room, at, room.state);
      copy(room.error.data, stored_error(memory).data, z_.chunk * z_.value_width);
    }
    this->advance(room, at, room.state);
  }

  void chunk_back(BackRoom& room, const Chunk& at, float* memory) const {
    const int64_t rows = at.rows();
    load_chunk(room, at, memory);
    this->fetch(call_.query, at, at.head, call_.dim, -1);
    this->weigh(room, at, room.query, room.scores);
    this->fetch(call_.key, at, this->key_head(at), call_.dim, -1);
    const Matrix kept = this->decayed(room, room.key, room.decays.after, rows);
    product<Into::fresh>(kept, room.d_state, call_.dim, room.d_values, rows, call_.value_dim);
    this->fetch(call_.value, at, this->key_head(at), call_.value_dim, -1);
    add_lower_transposed(room.scores, room.d_out, room.d_values, rows, call_.value_dim);
    this->fetch(call_.d_out, at, at.head, call_.value_dim, -1);
    product<Into::fresh>(this->written(room), room.d_state_across, call_.value_dim, room.d_key, rows, z_.key_width);
    if (call_.log_decay.data) times(room.d_key, room.decays.after, room.d_key, rows, z_.key_width);
    if (call_.d_log_decay) keep_decay(call_, z_, at, stored_state(memory), room);
    clear(room.d_query, rows);
    read_back<Into::fresh>(room, at, room.query, room.d_out, room.scores, room.d_query);
    retreat<Into::scaled_sum>(room, at, room.query, room.d_out, room.d_state);
    if (this->delta()) values_back(room, at);
    this->write(room.d_query, call_.d_query, at, call_.dim);
    this->write(room.d_key, call_.d_key, at, call_.dim);
    this->write(room.d_values, call_.d_value, at, call_.value_dim);
    if (call_.d_log_decay) finish_decay(call_, at, room);
  }

  void load_chunk(BackRoom& room, const Chunk& at, float* memory) const {
    this->load_keys(room, at);
    this->turn_keys(room);
    load_queries(room, at);
    if (this->delta()) {
      copy(stored_error(memory).data, room.error.data, z_.chunk * z_.value_width);
      this->scale_error(room, at);
    }
    transpose(this->written(room), z_.chunk, z_.value_width, room.values_across);
    transpose(stored_state(memory), z_.key_width, z_.value_width, room.state_across);
    transpose(room.d_state, z_.key_width, z_.value_width, room.d_state_across);
  }

  // Through `x`, which read the state and, by `weights`, the chunk's own values; `y` is the gradient of what it read. Into::sum is for
  // the keys of the delta rule, which see the tokens before their own alone.
  template <Into kInto>
  void read_back(BackRoom& room, const Chunk& at, Matrix x, Matrix y, Matrix weights, Matrix d_x) const {
    const int64_t rows = at.rows(), width = z_.key_width;
    if (call_.channels) clear(room.d_weights, z_.chunk + kLane);
    product_lower(y, room.values_across, call_.value_dim, room.d_weights, rows);
    product<Into::fresh>(y, room.state_across, call_.value_dim, room.through_state, rows, width);
    if (call_.log_decay.data) times(room.through_state, room.decays.before, room.through_state, rows, width);
    add(room.through_state, d_x, rows, width);
    if (call_.d_log_decay) read_decay<kInto>(call_, z_, at, x, weights, room);
    if (call_.channels) return channel_back(room, rows, width);
    decay_lower(room.decays, room.d_weights, rows);
    if (kInto == Into::sum)
      for (int64_t i = 0; i < rows; ++i) room.d_weights.row(i)[i] = 0;
    add_lower(room.d_weights, room.key, d_x, rows, width);
    add_lower_transposed(room.d_weights, x, room.d_key, rows, width);
  }

  // From gradients of what the delta rule wrote to those of values, beta and the keys that read.
  void values_back(BackRoom& room, const Chunk& at) const {
    const int64_t rows = at.rows(), width = z_.value_width;
    this->weigh(room, at, room.key, room.weights);
    solve_upper(room.weights, room.beta, rows, call_.value_dim, room.d_values, room.minus_values);
    const int64_t row = (at.batch * call_.query_heads + at.head) * call_.tokens + at.first;
    for (int64_t t = 0; call_.d_beta && t < at.count; ++t)
      call_.d_beta[row + t] = dot(room.d_values.row(t), room.error.row(t), call_.value_dim);
    read_back<Into::sum>(room, at, room.key, room.minus_values, room.weights, room.d_key);
    retreat<Into::sum>(room, at, room.key, room.minus_values, room.d_state);
    combine(room.minus_values, room.minus_values, room.d_values, rows, width, [](VF x, VF) { return -x; });
  }

  Segments segments_;
};

}  // namespace manymax::MANYMAX_ISA
