// The cross-entropy of a linear map's scores, and its gradients, a chunk of tokens at a time. Threads share the classes: each makes
// the scores of its blocks and sums over them; then, knowing all tokens' lse, turns them into gradients and adds its part of d_input
// and its own rows of d_rows. The order of sums depends on the number of threads alone.
#pragma once

#include "back.h"

namespace manymax::MANYMAX_ISA {

template <class S, class E>
class CrossEntropy {
  static constexpr int64_t kEntries = ElementOf<E>::kEntries;

 public:
  explicit CrossEntropy(const LossCall& call)
      : call_(call),
        z_(call),
        rows_(call, z_),
        back_(call, z_),
        threads_(z_.blocks < call.threads ? static_cast<int>(z_.blocks) : call.threads) {}

  void run() {
    if (call_.tokens == 0) return back_.clear();
    Arena arena;
    const int64_t scores = arena.reserve<float>(z_.blocks * kClasses<E> * z_.tokens + kPanel);
    const int64_t across = arena.reserve<E>(z_.groups * kPanel * z_.depth);
    const int64_t along = arena.reserve<E>(z_.tokens / kEntries * z_.panels * kPanel);
    const int64_t running = arena.reserve<Running>(1, threads_);
    const int64_t d_input = arena.reserve<float>(z_.sums, threads_);
    const int64_t block = kClasses<E> * z_.rows_step + kPanel, rows = arena.reserve<E>(block, threads_);
    const int64_t wide = kEntries == 1 ? 0 : kClasses<E> / 2 * kColumns;
    const int64_t panels = arena.reserve<E>(wide, threads_);
    const int64_t narrow = kEntries == 1 ? 0 : kClasses<E> / 2 * z_.tokens + kPanel, pairs = arena.reserve<E>(narrow, 2 * threads_);
    const int64_t all = kClasses<E> * z_.tokens + kPanel, gradients = arena.reserve<float>(all, threads_);
    const int64_t spill = arena.reserve<float>(kStrip * kPanel, threads_);
    arena.allocate();
    LossRoom<E> room;
    room.scores = arena.at<float>(scores), room.across = arena.at<E>(across), room.along = arena.at<E>(along);
    parallel(threads_, [&](Team team) {
      const int r = team.rank;
      const LossHand<E> hand = {arena.at<Running>(running, 1, r),       arena.at<float>(d_input, z_.sums, r),
                                arena.at<float>(gradients, all, r),     arena.at<E>(rows, block, r),
                                arena.at<E>(panels, wide, r),           arena.at<E>(pairs, narrow, 2 * r),
                                arena.at<E>(pairs, narrow, 2 * r + 1),  arena.at<float>(spill, kStrip * kPanel, r)};
      for (int64_t token = 0; token < call_.tokens; token += z_.tokens) {
        const int64_t left = call_.tokens - token;
        chunk(team, token, left < z_.tokens ? left : z_.tokens, room, hand);
      }
    });
  }

 private:
  Stretch<S> tokens_from(int64_t token, int64_t count, int64_t d, int64_t dim) const {
    return {static_cast<const S*>(call_.input) + token * call_.input_step + d, call_.input_step, count, dim};
  }
  ClassBlock block(const LossRoom<E>& room, int64_t b) const {
    const int64_t left = call_.classes - b * kClasses<E>;
    return {b * kClasses<E>, left < kClasses<E> ? left : kClasses<E>, room.scores + b * kClasses<E> * z_.tokens};
  }

  void pack_across(int64_t token, int64_t count, const LossRoom<E>& room) const {
    for (int64_t g = 0; g < z_.groups; ++g) {
      const int64_t left = count - g * z_.group;
      pack_panels(tokens_from(token + g * z_.group, left < z_.group ? left : z_.group, 0, call_.dim), kPanel,
                  room.across + g * z_.depth * kPanel);
    }
  }
  void pack_along(int64_t token, int64_t count, const LossRoom<E>& room) const {
    for (int64_t p = 0; p < z_.panels; ++p)
      pack_tokens(tokens_from(token, count, p * kPanel, z_.panel_dim(call_.dim, p)), z_.tokens, kPanel,
                  room.along + p * (z_.tokens / kEntries) * kPanel);
  }

  void chunk(Team team, int64_t token, int64_t count, LossRoom<E>& room, const LossHand<E>& hand) const {
    team.barrier();  // the chunk before is done with what is packed now
    if (team.rank == 0) pack_across(token, count, room);
    if (team.rank == team.size - 1 && call_.d_rows) pack_along(token, count, room);
    team.barrier();
    int64_t first, last;
    team.share(z_.blocks, 1, first, last);
    clear_sums(*hand.running);
    for (int64_t b = first; b < last; ++b) score(block(room, b), token, count, room, hand);
    team.barrier();
    if (team.rank == 0) finish(team, token, count, room, hand);
    team.barrier();
    if (!call_.d_losses) return;
    __builtin_memset(hand.d_input, 0, static_cast<size_t>(z_.sums) * sizeof(float));
    for (int64_t b = first; b < last; ++b) back_.run(block(room, b), token, count, room, hand);
    team.barrier();
    back_.write_input(team, token, count, hand);
  }

  void score(const ClassBlock& at, int64_t token, int64_t count, LossRoom<E>& room, const LossHand<E>& hand) const {
    int64_t step;
    const E* rows = rows_.whole(at, hand.rows, step);
    const int64_t strips = (at.count + kStrip - 1) / kStrip, parts = (z_.depth + kDepth - 1) / kDepth;
    for (int64_t part = 0; part < parts; ++part) {
      const int64_t k = part * kDepth, depth = z_.depth - k < kDepth ? z_.depth - k : kDepth;
      for (int64_t g = 0; g < z_.groups; ++g) {
        const Factors<E> factors = {rows + k, step, room.across + (g * z_.depth + k) * kPanel, kPanel, depth};
        const auto next = rows_.behind(at, part * z_.groups + g, parts * z_.groups);
        float* to = at.scores + g * z_.group;
        part == 0 ? multiply_asking<E, Into::fresh>(factors, to, z_.tokens, strips, z_.vectors_of(g), next.at, next.bytes)
                  : multiply_asking<E, Into::sum>(factors, to, z_.tokens, strips, z_.vectors_of(g), next.at, next.bytes);
      }
    }
    Running& running = *hand.running;
    alignas(64) float before[kTokens];
    __builtin_memcpy(before, running.largest, sizeof before);
    finish_scores(call_, at, z_.tokens, running.largest);
    add_exponentials(at, z_.tokens, before, running);
    if (call_.smoothing > 0) add_spread(call_, at, z_.tokens, running);
    if (call_.probabilities) add_probabilities(call_, at, token, count, z_.tokens, running);
  }

  // All threads' sums become losses, and what the gradients need.
  void finish(Team team, int64_t token, int64_t count, LossRoom<E>& room, const LossHand<E>& hand) const {
    Running& all = *hand.running;
    for (int r = 1; r < team.size; ++r) join(all, hand.running[r]);
    for (int64_t i = 0; i < z_.tokens; i += kLane) {
      const VF sum = load(all.sum + i);
      const VF found = log_normal<float>(sum) + usable(load(all.largest + i));
      store(room.lse + i, sum > VF{} ? found : sum == VF{} ? splat(-kInfinity<float>) : sum);
    }
    double weights = static_cast<double>(call_.classes);
    if (call_.weight && call_.smoothing > 0) {
      weights = 0;
      for (int64_t c = 0; c < call_.classes; ++c) weights += call_.weight[c];
    }
    const double even = call_.smoothing / static_cast<double>(call_.classes);
    float largest = 0;
    for (int64_t i = 0; i < z_.tokens; ++i) {
      room.gain[i] = room.slope[i] = room.aim[i] = 0;
      if (i < count) finish_token(token, i, room, all, even, weights);
      largest = __builtin_fmaxf(largest, __builtin_fabsf(room.slope[i]));
    }
    room.least = static_cast<float>(call_.skip) * largest;
  }

  void finish_token(int64_t token, int64_t i, LossRoom<E>& room, const Running& all, double even, double weights) const {
    const double sharp = 1 - call_.smoothing, lse = room.lse[i];
    const int64_t target = call_.probabilities ? -1 : call_.target[token + i];
    double aim = 0, mass = sharp * all.mass[i], picked = sharp * all.picked[i];
    if (target >= 0) {
      aim = mass = sharp * weight_of(call_, target);
      picked = aim * room.scores[target * z_.tokens + i];
    }
    mass += even * weights, picked += even * all.spread[i];
    call_.losses[token + i] = static_cast<float>(mass * lse - picked + call_.penalty * lse * lse);
    call_.lse[token + i] = room.lse[i];
    if (!call_.d_losses) return;
    const double gain = call_.d_losses[token + i], more = call_.d_lse ? call_.d_lse[token + i] : 0;
    if (gain == 0 && more == 0) return;  // an lse of inf or NaN does not matter
    room.gain[i] = static_cast<float>(gain);
    room.aim[i] = static_cast<float>(gain * aim);
    room.slope[i] = static_cast<float>(gain * (mass + 2 * call_.penalty * lse) + more);
  }

  const LossCall& call_;
  const LossSizes<E> z_;
  const ClassRows<S, E> rows_;
  const LossBack<S, E> back_;
  const int threads_;
};

}  // namespace manymax::MANYMAX_ISA
