// The cross-entropy of a linear map's scores, and its gradients, a chunk of tokens at a time. Threads share the classes: each makes
// the scores of its blocks and sums over them; then, knowing all tokens' lse, turns them into gradients and adds its part of d_input
// and its own rows of d_rows. The order of sums depends on the number of threads alone.
#pragma once

#include "../parallel.h"
#include "gradients.h"

namespace manymax::MANYMAX_ISA {

template <class S, class E>
class CrossEntropy {
  static constexpr int64_t kEntries = ElementOf<E>::kEntries, kBytes = sizeof(S);

 public:
  explicit CrossEntropy(const LossCall& call)
      : call_(call), z_(call), threads_(z_.blocks < call.threads ? static_cast<int>(z_.blocks) : call.threads) {}

  void run() {
    if (call_.tokens == 0) return clear({0, call_.classes, nullptr});
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
  Stretch<S> rows_from(const ClassBlock& at, int64_t d, int64_t dim) const {
    return {static_cast<const S*>(call_.rows) + at.first * call_.rows_step + d, call_.rows_step, at.count, dim};
  }
  ClassBlock block(const LossRoom<E>& room, int64_t b) const {
    const int64_t left = call_.classes - b * kClasses<E>;
    return {b * kClasses<E>, left < kClasses<E> ? left : kClasses<E>, room.scores + b * kClasses<E> * z_.tokens};
  }
  int64_t panel_dim(int64_t panel) const {
    const int64_t left = call_.dim - panel * kPanel;
    return left < kPanel ? left : kPanel;
  }

  void chunk(Team team, int64_t token, int64_t count, LossRoom<E>& room, const LossHand<E>& hand) const {
    team.barrier();  // the chunk before is done with what is packed now
    for (int64_t g = 0; team.rank == 0 && g < z_.groups; ++g) {
      const int64_t left = count - g * z_.group;
      pack_panels(tokens_from(token + g * z_.group, left < z_.group ? left : z_.group, 0, call_.dim), kPanel,
                  room.across + g * z_.depth * kPanel);
    }
    if (team.rank == team.size - 1 && call_.d_rows)
      for (int64_t p = 0; p < z_.panels; ++p)
        pack_tokens(tokens_from(token, count, p * kPanel, panel_dim(p)), z_.tokens, kPanel,
                    room.along + p * (z_.tokens / kEntries) * kPanel);
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
    for (int64_t b = first; b < last; ++b) back(block(room, b), token, count, room, hand);
    team.barrier();
    write_input(team, token, count, hand);
  }

  // Part `index` of `parts` of the rows behind a block, which come next from memory; nothing behind the last.
  struct Part {
    const char* at;
    int64_t bytes;
  };
  Part behind(const ClassBlock& at, int64_t index, int64_t parts) const {
    const int64_t first = at.first + kClasses<E>, left = call_.classes - first, rows = left < kClasses<E> ? left : kClasses<E>;
    if (rows <= 0) return {nullptr, 0};
    const int64_t bytes = ((rows - 1) * call_.rows_step + call_.dim) * kBytes, each = (bytes + parts - 1) / parts;
    return {static_cast<const char*>(call_.rows) + first * call_.rows_step * kBytes + index * each, each};
  }

  // Rows as the products take them: in memory's own place if they are of that type and the block is whole strips. The last rows are
  // not, since a strip of the dim may read past their end.
  const E* rows_of(const ClassBlock& at, const LossHand<E>& hand, int64_t& step) const {
    if constexpr (sizeof(S) * kEntries == sizeof(E)) {
      const bool inside = call_.dim % kStrip == 0 || at.first + at.count < call_.classes;
      if (inside && at.count % kStrip == 0 && call_.dim % kEntries == 0 && call_.rows_step % kEntries == 0) {
        step = call_.rows_step / kEntries;
        return reinterpret_cast<const E*>(static_cast<const S*>(call_.rows) + at.first * call_.rows_step);
      }
    }
    step = z_.rows_step;
    pack_rows(rows_from(at, 0, call_.dim), round_up(at.count, kStrip), step * kEntries, 1, hand.rows);
    return hand.rows;
  }

  void score(const ClassBlock& at, int64_t token, int64_t count, LossRoom<E>& room, const LossHand<E>& hand) const {
    int64_t step;
    const E* rows = rows_of(at, hand, step);
    const int64_t strips = (at.count + kStrip - 1) / kStrip, parts = (z_.depth + kDepth - 1) / kDepth;
    for (int64_t part = 0; part < parts; ++part) {
      const int64_t k = part * kDepth, depth = z_.depth - k < kDepth ? z_.depth - k : kDepth;
      for (int64_t g = 0; g < z_.groups; ++g) {
        const Factors<E> factors = {rows + k, step, room.across + (g * z_.depth + k) * kPanel, kPanel, depth};
        const Part next = behind(at, part * z_.groups + g, parts * z_.groups);
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

  void clear(const ClassBlock& at) const {
    if (call_.d_rows)
      __builtin_memset(call_.d_rows + at.first * call_.dim, 0, static_cast<size_t>(at.count * call_.dim) * sizeof(float));
    if (call_.d_bias) __builtin_memset(call_.d_bias + at.first, 0, static_cast<size_t>(at.count) * sizeof(float));
  }

  void back(const ClassBlock& at, int64_t token, int64_t count, const LossRoom<E>& room, const LossHand<E>& hand) const {
    if (token == 0) clear(at);
    if (block_gradients(call_, at, room, token, count, z_.tokens, hand.gradients) < room.least) return;
    if (call_.d_bias) add_to_bias(at, hand.gradients, z_.tokens, call_.d_bias);
    const E *pairs, *couples;
    if constexpr (kEntries == 1) {
      pairs = couples = hand.gradients;
    } else {
      narrow_gradients(hand.gradients, at.count, z_.tokens, hand.pairs, hand.couples);
      pairs = hand.pairs, couples = hand.couples;
    }
    if (call_.d_input) add_to_input(at, pairs, hand);
    if (call_.d_rows) add_to_rows(at, couples, room, hand);
  }

  // d_input^T += rows^T d_scores: rows are read as they lie in memory, once, but for pairs, which are of two classes: those of some
  // columns at a time, which stay in the first-level cache.
  void add_to_input(const ClassBlock& at, const E* pairs, const LossHand<E>& hand) const {
    const int64_t depth = (at.count + kEntries - 1) / kEntries, width = kEntries == 1 ? z_.strips * kStrip : kColumns;
    const int64_t parts = (z_.strips * kStrip + width - 1) / width;
    int64_t step = kColumns;
    const E* rows = hand.panels;
    if constexpr (kEntries == 1) rows = rows_of(at, hand, step);
    for (int64_t part = 0; part < parts; ++part) {
      const int64_t d = part * width, left = call_.dim - d, dim = left < width ? left : width;
      if constexpr (kEntries > 1) pack_tokens(rows_from(at, d, dim), at.count, kColumns, hand.panels);
      for (int64_t g = 0; g < z_.groups; ++g) {
        const Factors<E> factors = {rows, step, pairs + g * z_.group, z_.tokens, depth};
        const Part next = behind(at, part * z_.groups + g, parts * z_.groups);
        multiply_asking<E, Into::sum, true>(factors, hand.d_input + d * z_.tokens + g * z_.group, z_.tokens,
                                            (dim + kStrip - 1) / kStrip, z_.vectors_of(g), next.at, next.bytes);
      }
    }
  }

  // d_rows += d_scores^T input, a strip of rows after the other, since they come from memory; in place where vectors are whole
  void add_to_rows(const ClassBlock& at, const E* couples, const LossRoom<E>& room, const LossHand<E>& hand) const {
    const int64_t depth = z_.tokens / kEntries, part = kStrip * call_.dim / z_.panels;
    for (int64_t c = 0; c < at.count; c += kStrip) {
      const int64_t left = at.count - c, count = left < kStrip ? left : kStrip;
      float* rows = call_.d_rows + (at.first + c) * call_.dim;
      const float* next = rows + kStrip * call_.dim;
      for (int64_t p = 0; p < z_.panels; ++p) {
        const Factors<E> factors = {couples + c * depth, depth, room.along + p * depth * kPanel, kPanel, depth};
        const int64_t dim = panel_dim(p), bytes = part * static_cast<int64_t>(sizeof(float));
        float* to = rows + p * kPanel;
        if (dim % kLane == 0 && count == kStrip) {
          multiply_asking<E, Into::sum>(factors, to, call_.dim, 1, dim / kLane, next + p * part, bytes);
        } else {
          multiply<E, Into::fresh>(factors, hand.spill, kPanel, 1, z_.vectors(p));
          add_spilled(hand.spill, count, dim, to);
        }
      }
    }
  }
  void add_spilled(const float* spill, int64_t count, int64_t dim, float* to) const {
    for (int64_t c = 0; c < count; ++c) {
      for (int64_t d = 0; d < dim; d += kLane) {
        float* place = to + c * call_.dim + d;
        store_some(place, dim - d, load_some(place, dim - d) + load(spill + c * kPanel + d));
      }
    }
  }

  // All threads' parts of d_input^T, added and transposed.
  void write_input(Team team, int64_t token, int64_t count, const LossHand<E>& hand) const {
    if (!call_.d_input) return;
    const float* parts = hand.d_input - team.rank * z_.sums;
    int64_t first, last;
    team.share(call_.dim, kLane, first, last);
    for (int64_t d = first; d < last; d += kLane) {
      for (int64_t i = 0; i < count; i += kLane) {
        VF sums[kLane];
        for (int l = 0; l < kLane; ++l) {
          sums[l] = VF{};
          for (int r = 0; d + l < last && r < team.size; ++r) sums[l] += load(parts + r * z_.sums + (d + l) * z_.tokens + i);
        }
        transpose(sums);
        for (int l = 0; l < kLane && i + l < count; ++l)
          store_some(static_cast<S*>(call_.d_input) + (token + i + l) * call_.dim + d, call_.dim - d, sums[l]);
      }
    }
  }

  const LossCall& call_;
  const LossSizes<E> z_;
  const int threads_;
};

}  // namespace manymax::MANYMAX_ISA
