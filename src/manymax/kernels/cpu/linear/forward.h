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
  explicit LinearForward(const LinearCall& call) : Base(call) {}

  void run() {
    Arena arena;
    const int64_t size = size_of<Room>(call_, z_), rooms = arena.reserve<float>(size, tasks_.threads);
    const int64_t segments = arena.reserve<float>(tasks_.segments > 1 ? Segments::size(tasks_, z_) : 0);
    arena.allocate();
    segments_ = Segments(arena.at<float>(segments), tasks_, z_);
    Queue visits, outputs;
    parallel(static_cast<int>(tasks_.threads), [&](const Team& team) {
      Carver carver(arena.at<float>(rooms, size, team.rank));
      Room room(carver, call_, z_);
      int64_t task;
      if (tasks_.segments > 1) {
        while (visits.next(tasks_.count(), task)) this->visit(room, segments_, task);
        team.barrier();
      }
      while (outputs.next(tasks_.count(), task)) segment(room, task);
    });
  }

 private:
  void segment(Room& room, int64_t task) const {
    const int64_t head = task / tasks_.segments, s = task % tasks_.segments;
    this->start(this->of_head(call_.initial_state, head), room.state);
    for (int64_t before = task - s; before < task; ++before) segments_.join(before, segments_.added(before), room.state);
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

  void output(Room& room, const Chunk& at) const {
    this->pack(call_.query, at, at.head, call_.dim, room.query);
    this->fetch(call_.query, at, at.head, call_.dim, 1);
    this->weigh(room, at, room.query, room.scores);
    const Matrix read = this->decayed(room, room.query, room.decays.before, at.rows());
    this->fetch(call_.key, at, this->key_head(at), call_.dim, 1);
    product<Into::fresh>(read, room.state, call_.dim, room.out, at.rows(), call_.value_dim);
    this->fetch(call_.value, at, this->key_head(at), call_.value_dim, 1);
    add_lower(room.scores, this->written(room), room.out, at.rows(), call_.value_dim);
    this->write(room.out, call_.out, at, call_.value_dim);
  }

  Segments segments_;
};

}  // namespace manymax::MANYMAX_ISA
