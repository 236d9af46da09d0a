// How the work is cut: heads for threads, and where there are fewer heads, segments of a head.
#pragma once

#include "../attention/arena.h"
#include "../parallel.h"
#include "room.h"

namespace manymax::MANYMAX_ISA {

// Heads are shared out among threads; where there are fewer, a head is cut into segments of chunks. Segments start from states that
// the first of two visits finds, which costs a third of the work. The delta rule mixes the rows of a state: there a head stays whole
// (../../columns.py gives each thread some columns of the values).
struct Tasks {
  int64_t heads, segments, threads;

  Tasks(const LinearCall& call, const LinearSizes& z) : heads(call.batch * call.query_heads), segments(1) {
    const double products = static_cast<double>(heads * call.tokens) * static_cast<double>(call.dim * call.value_dim);
    const double useful = 1 + products / 5e5;  // 9 us of work each: waking costs half of that
    threads = useful < call.threads ? static_cast<int64_t>(useful) : call.threads;
    if (heads > 0 && heads < threads && !call.beta.data) segments = (threads + heads - 1) / heads;
    if (segments > z.chunks) segments = z.chunks > 0 ? z.chunks : 1;
    if (threads > count()) threads = count() > 0 ? count() : 1;
  }
  int64_t count() const { return heads * segments; }
};

// What each segment does to a state: its factors, what it adds, and backwards what it adds to the gradient. Memory for all tasks.
class Segments {
 public:
  Segments() = default;
  Segments(float* memory, const Tasks& tasks, const LinearSizes& z)
      : sizes_(&z), added_(memory), d_added_(added_ + tasks.count() * z.state()), spans_(d_added_ + tasks.count() * z.state()) {}
  static int64_t size(const Tasks& tasks, const LinearSizes& z) { return tasks.count() * (2 * z.state() + z.state_rows); }

  Matrix added(int64_t task) const { return {added_ + task * sizes_->state(), sizes_->value_width}; }
  Matrix d_added(int64_t task) const { return {d_added_ + task * sizes_->state(), sizes_->value_width}; }

  void clear(int64_t task) const {
    manymax::MANYMAX_ISA::clear(added(task), sizes_->state_rows);
    manymax::MANYMAX_ISA::clear(d_added(task), sizes_->state_rows);
    for (int64_t r = 0; r < sizes_->state_rows; ++r) span(task)[r] = 1;
  }
  void shrink(int64_t task, const float* factors) const {
    for (int64_t r = 0; r < sizes_->state_rows; ++r) span(task)[r] *= factors[r];
  }
  // The state on the far side of a segment.
  void join(int64_t task, Matrix what, Matrix state) const {
    for (int64_t r = 0; r < sizes_->key_width; ++r)
      for (int64_t d = 0; d < sizes_->value_width; d += kLane)
        store(state.row(r) + d, fma(splat(span(task)[r]), load(state.row(r) + d), load(what.row(r) + d)));
  }

 private:
  float* span(int64_t task) const { return spans_ + task * sizes_->state_rows; }

  const LinearSizes* sizes_ = nullptr;
  float *added_ = nullptr, *d_added_ = nullptr, *spans_ = nullptr;
};

}  // namespace manymax::MANYMAX_ISA
