// Backwards, block of classes by block: gradients of scores, and the two products that add them to those of the input and the rows.
#pragma once

#include "../parallel.h"
#include "gradients.h"
#include "rows.h"

namespace manymax::MANYMAX_ISA {

template <class S, class E>
class LossBack {
  static constexpr int64_t kEntries = ElementOf<E>::kEntries;
  using Part = typename ClassRows<S, E>::Part;

 public:
  LossBack(const LossCall& call, const LossSizes<E>& sizes) : call_(call), z_(sizes), rows_(call, sizes) {}

  // All gradients of no tokens.
  void clear() const {
    const ClassBlock all = {0, call_.classes, nullptr};
    clear(all);
    if (call_.narrow_rows) narrow(all);
  }

  void run(const ClassBlock& at, int64_t token, int64_t count, const LossRoom<E>& room, const LossHand<E>& hand) const {
    if (token == 0) clear(at);
    add(at, token, count, room, hand);
    if (call_.narrow_rows && token + count == call_.tokens) narrow(at);
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

 private:
  void add(const ClassBlock& at, int64_t token, int64_t count, const LossRoom<E>& room, const LossHand<E>& hand) const {
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

  void clear(const ClassBlock& at) const {
    if (call_.d_rows)
      __builtin_memset(call_.d_rows + at.first * call_.dim, 0, static_cast<size_t>(at.count * call_.dim) * sizeof(float));
    if (call_.d_bias) __builtin_memset(call_.d_bias + at.first, 0, static_cast<size_t>(at.count) * sizeof(float));
  }

  // Sums of all tokens, rounded once.
  void narrow(const ClassBlock& at) const {
    S* const to = static_cast<S*>(call_.narrow_rows);
    const int64_t end = (at.first + at.count) * call_.dim;
    for (int64_t i = at.first * call_.dim; i < end; i += kLane) store_some(to + i, end - i, load_some(call_.d_rows + i, end - i));
  }

  // Whether the rows of the next block are asked for while those of d_rows pass by, and not before: what passes by pushes out of the
  // second-level cache what has come too early. 4 % in float32, nothing as pairs.
  bool late() const { return kEntries == 1 && call_.d_rows && z_.panels > 1; }
  Part scores_behind(const ClassBlock& at, int64_t index, int64_t parts) const {
    const int64_t all = kClasses<E> * z_.tokens, each = all / parts;
    return {reinterpret_cast<const char*>(at.scores + all + index * each), each * static_cast<int64_t>(sizeof(float))};
  }
  // What the product of strip `strip` and panel p asks for: d_rows' next strip, or in every other panel of the rows.
  Part beside_rows(const ClassBlock& at, int64_t strip, int64_t p) const {
    const int64_t part = kStrip * call_.dim / z_.panels * static_cast<int64_t>(sizeof(float));
    const char* const next = reinterpret_cast<const char*>(call_.d_rows + (at.first + (strip + 1) * kStrip) * call_.dim);
    if (!late()) return {next + p * part, part};
    const int64_t turns = (z_.panels + 1) / 2;
    return p % 2 ? rows_.behind(at, strip * turns + p / 2, kClasses<E> / kStrip * turns) : Part{next + p * part, 2 * part};
  }

  // d_input^T += rows^T d_scores: rows are read as they lie in memory, once, but for pairs, which are of two classes: those of some
  // columns at a time, which stay in the first-level cache.
  void add_to_input(const ClassBlock& at, const E* pairs, const LossHand<E>& hand) const {
    const int64_t depth = (at.count + kEntries - 1) / kEntries, width = kEntries == 1 ? z_.strips * kStrip : kColumns;
    const int64_t parts = (z_.strips * kStrip + width - 1) / width;
    int64_t step = kColumns;
    const E* rows = hand.panels;
    if constexpr (kEntries == 1) rows = rows_.whole(at, hand.rows, step);
    for (int64_t part = 0; part < parts; ++part) {
      const int64_t d = part * width, left = call_.dim - d, dim = left < width ? left : width;
      if constexpr (kEntries > 1) pack_tokens(rows_.of(at, d, dim), at.count, kColumns, hand.panels);
      for (int64_t g = 0; g < z_.groups; ++g) {
        const Factors<E> factors = {rows, step, pairs + g * z_.group, z_.tokens, depth};
        const Part next = late() ? scores_behind(at, part * z_.groups + g, parts * z_.groups)
                                 : rows_.behind(at, part * z_.groups + g, parts * z_.groups);
        multiply_asking<E, Into::sum, true>(factors, hand.d_input + d * z_.tokens + g * z_.group, z_.tokens,
                                            (dim + kStrip - 1) / kStrip, z_.vectors_of(g), next.at, next.bytes);
      }
    }
  }

  // d_rows += d_scores^T input, a strip of rows after the other, since they come from memory; in place where vectors are whole
  void add_to_rows(const ClassBlock& at, const E* couples, const LossRoom<E>& room, const LossHand<E>& hand) const {
    const int64_t depth = z_.tokens / kEntries;
    for (int64_t c = 0; c < at.count; c += kStrip) {
      const int64_t left = at.count - c, count = left < kStrip ? left : kStrip;
      float* rows = call_.d_rows + (at.first + c) * call_.dim;
      for (int64_t p = 0; p < z_.panels; ++p) {
        const Factors<E> factors = {couples + c * depth, depth, room.along + p * depth * kPanel, kPanel, depth};
        const int64_t dim = z_.panel_dim(call_.dim, p);
        float* to = rows + p * kPanel;
        if (dim % kLane == 0 && count == kStrip) {
          const Part next = beside_rows(at, c / kStrip, p);
          multiply_asking<E, Into::sum>(factors, to, call_.dim, 1, dim / kLane, next.at, next.bytes);
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

  const LossCall& call_;
  const LossSizes<E>& z_;
  const ClassRows<S, E> rows_;
};

}  // namespace manymax::MANYMAX_ISA
