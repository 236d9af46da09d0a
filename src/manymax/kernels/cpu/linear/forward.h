// Forwards: chunk by chunk with the state carried along. An output is the query with the state before the chunk, and weights of the
// chunk's own tokens times their values.
#pragma once

#include "sweep.h"

namespace manymax::MANYMAX_ISA {

template <class S>
class LinearForward : Sweep<S> {
  using Base = Sweep<S>;
  using Base::call_, Base::z_, Base::tasks_;

 public:
  explicit LinearForward(const LinearCall& call) : Base(call) {
    Carver counter(nullptr);
    Room(counter, call, z_);
    room_size_ = counter.taken();
  }

  void run() {
    Arena arena;
    const int64_t rooms = arena.reserve<float>(room_size_, tasks_.threads);
    states_at_ = arena.reserve<float>(tasks_.segments > 1 ? tasks_.count() * (z_.state() + z_.state_rows) : 0);
    arena.allocate();
    states_ = arena.at<float>(states_at_);
    Queue visits, outputs;
    parallel(static_cast<int>(tasks_.threads), [&](const Team& team) {
      Carver carver(arena.at<float>(rooms, room_size_, team.rank));
      Room room(carver, call_, z_);
      int64_t task;
      if (tasks_.segments > 1) {
        while (visits.next(tasks_.count(), task)) visit(room, task);
        team.barrier();
      }
      while (outputs.next(tasks_.count(), task)) segment(room, task);
    });
  }

 private:
  // What a segment adds to the state, and by which factors it shrinks what came before.
  Matrix added(int64_t task) const { return {states_ + task * z_.state(), z_.value_width}; }
  float* span(int64_t task) const { return states_ + tasks_.count() * z_.state() + task * z_.state_rows; }

  void visit(Room& room, int64_t task) const {
    const int64_t head = task / tasks_.segments, s = task % tasks_.segments;
    this->start(nullptr, added(task));
    for (int64_t r = 0; r < z_.state_rows; ++r) span(task)[r] = 1;
    if (s + 1 == tasks_.segments) return;
    for (int64_t c = this->first_chunk(s); c < this->first_chunk(s + 1); ++c) {
      const Chunk at = this->chunk(head, c);
      this->load_keys(room, at);
      this->advance(room, at, added(task));
      for (int64_t r = 0; r < z_.state_rows; ++r) span(task)[r] *= room.decays.whole[r];
    }
  }

  // The outputs of a segment.
  void segment(Room& room, int64_t task) const {
    const int64_t head = task / tasks_.segments, s = task % tasks_.segments;
    this->start(this->of_head(call_.initial_state, head), room.state);
    for (int64_t before = task - s; before < task; ++before) join(before, room.state);
    for (int64_t c = this->first_chunk(s); c < this->first_chunk(s + 1); ++c) {
      const Chunk at = this->chunk(head, c);
      this->load_keys(room, at);
      this->turn_keys(room);
      if (this->delta()) this->correct_values(room, at, room.state);
      output(room, at);
      this->advance(room, at, room.state);
    }
    if (s + 1 == tasks_.segments) this->finish(room.state, const_cast<float*>(this->of_head(call_.final_state, head)));
  }

  void join(int64_t task, Matrix state) const {
    for (int64_t r = 0; r < call_.dim; ++r) {
      const VF factor = splat(span(task)[r]);
      for (int64_t d = 0; d < z_.value_width; d += kLane)
        store(state.row(r) + d, fma(factor, load(state.row(r) + d), load(added(task).row(r) + d)));
    }
  }

  void output(Room& room, const Chunk& at) const {
    this->pack(call_.query, at, at.head, call_.dim, room.query);
    this->weigh(room, at, room.query, room.scores);
    times(room.query, room.decays.before, room.scaled, at.rows(), z_.key_width);
    product<Into::fresh>(room.scaled, room.state, call_.dim, room.out, at.rows(), z_.value_width);
    add_lower(room.scores, this->written(room), room.out, at.rows(), z_.value_width);
    this->write(room.out, call_.out, at, call_.value_dim);
  }

  int64_t room_size_ = 0, states_at_ = 0;
  float* states_ = nullptr;
};

}  // namespace manymax::MANYMAX_ISA
