// Forwards: keys and values are packed once for all, then threads take blocks of queries. A block visits its keys tile by tile:
// scores, weights relative to the largest score so far, sum of weighted values. Nothing of the scores' size is stored.
#pragma once

#include "layout.h"

namespace manymax::MANYMAX_ISA {

// Keys of a tile: with kRows queries its scores take 48 KB, as pairs 96 KB, of a second-level cache.
template <class E>
inline constexpr int64_t kColumns = ElementOf<E>::kEntries == 1 ? 128 : 256;
inline constexpr int64_t kWholeScores = 1 << 17;  // of a tile of whole rows: 512 KB

template <class S, class E>
class Forward {
  static constexpr int64_t kEntries = ElementOf<E>::kEntries;

 public:
  Forward(const AttentionCall& call, const Weigher<E>& weigher)
      : call_(call), weigher_(weigher), layout_(call), dropout_(call), threads_(threads_for(call)) {
    if (weigher.whole_rows()) {
      columns_ = layout_.keys;
      rows_ = between(kWholeScores / columns_ / kStrip * kStrip, kStrip, kRows);
    }
  }

  void run() {
    const int64_t heads = call_.batch * call_.key_heads;
    keys_at_ = arena_.reserve<E>(heads * layout_.panels_size);
    values_at_ = arena_.reserve<E>(heads * layout_.tokens_size);
    room_at_ = arena_.reserve<char>(room_size(), threads_);
    arena_.allocate();
    Queue packing, blocks;
    const int64_t pieces = heads * (layout_.keys / kPanel);
    const int64_t per_head = (call_.queries + rows_ - 1) / rows_;
    parallel(threads_, [&](const Team& team) {
      int64_t task;
      while (packing.next(pieces, task)) pack_piece<S>(call_, layout_, task, keys(0), values(0));
      team.barrier();
      Room room = room_of(team.rank);
      // Last blocks first: with causality they see most keys, and the shortest tasks fill up the end.
      while (blocks.next(call_.batch * call_.query_heads * per_head, task))
        block(room, task / per_head, (per_head - 1 - task % per_head) * rows_);
    });
  }

 private:
  // One thread's memory.
  struct Room {
    RowState rows;
    E* query;
    float* scores;
    float* out;
    Pair* pairs;

    float* scratch;
  };
  int64_t room_size() const { return (rows_ * (layout_.step + 2 * columns_ + layout_.width) + columns_ + 64) * 4; }
  Room room_of(int rank) const {
    Room room;
    room.scores = reinterpret_cast<float*>(arena_.at<char>(room_at_, room_size(), rank));
    room.out = room.scores + rows_ * columns_;
    room.pairs = reinterpret_cast<Pair*>(room.out + rows_ * layout_.width);
    room.query = reinterpret_cast<E*>(room.pairs + rows_ * columns_ / 2);
    room.scratch = reinterpret_cast<float*>(room.query + rows_ * layout_.step);
    return room;
  }

  E* keys(int64_t head) const { return arena_.at<E>(keys_at_) + head * layout_.panels_size; }
  E* values(int64_t head) const { return arena_.at<E>(values_at_) + head * layout_.tokens_size; }

  void block(Room& room, int64_t head, int64_t i) const {
    const int64_t b = head / call_.query_heads, h = head % call_.query_heads;
    const int64_t rows = call_.queries - i < rows_ ? call_.queries - i : rows_;
    const int64_t strips = (rows + kStrip - 1) / kStrip;
    const float factor = kEntries == 1 ? weigher_.scaling.product : 1;
    pack_rows(stretch<S>(call_.query, b, h, i, rows, call_.dim), strips * kStrip, layout_.step * kEntries, factor,
              room.query);
    __builtin_memset(room.out, 0, static_cast<size_t>(strips * kStrip * layout_.width) * sizeof(float));
    const Block whole{&call_, b, h, i, rows, 0, call_.keys};
    weigher_.start(whole, room.rows);
    const Range seen = keys_of(call_, i, rows);
    const int64_t key_head = b * call_.key_heads + h / (call_.query_heads / call_.key_heads);
    const int64_t end = round_up(seen.last, kPanel);
    for (int64_t j = seen.first / kPanel * kPanel; j < end; j += columns_)
      tile(room, {&call_, b, h, i, rows, j, end - j < columns_ ? end - j : columns_}, strips, key_head);
    finish(room, whole);
  }

  void tile(Room& room, const Block& at, int64_t strips, int64_t key_head) const {
    const Sight sight = look(at);
    if (sight == Sight::none) return;
    for (int64_t c = 0; c < at.columns; c += kPanel)
      multiply<E, Into::fresh>({room.query, layout_.step, keys(key_head) + (at.j + c) * layout_.depth, kPanel, layout_.depth},
                               room.scores + c, columns_, strips, kPanelVectors);
    float factor = kEntries == 1 ? 1 : weigher_.scaling.product;
    if (needs_preparing(call_, weigher_.scaling, sight)) {
      prepare(at, weigher_.scaling, sight, factor, room.scores, columns_, nullptr);
      factor = 1;
    }
    weigher_.weigh({at, factor, room.scores, columns_, room.pairs, room.scratch, call_.dropout > 0 ? &dropout_ : nullptr},
                   room.rows);
    const E* weights = reinterpret_cast<const E*>(kEntries == 1 ? static_cast<void*>(room.scores) : room.pairs);
    const Factors<E> factors{weights, columns_ / kEntries, values(key_head) + at.j / kEntries * layout_.width, layout_.width,
                             at.columns / kEntries};
    const int64_t vectors = layout_.width / kLane;
    if (weigher_.whole_rows()) {
      add_sparse(factors, room.out, strips);
    } else if (room.rows.changed) {
      multiply<E, Into::scaled_sum>(factors, room.out, layout_.width, strips, vectors, room.rows.change);
    } else {
      multiply<E, Into::sum>(factors, room.out, layout_.width, strips, vectors);
    }
  }

  // Maps that see whole rows leave most weights 0: panels of keys that no query of a strip attends to are left out.
  void add_sparse(Factors<E> whole, float* out, int64_t strips) const {
    constexpr int64_t kStep = kPanel / kEntries;
    for (int64_t s = 0; s < strips; ++s) {
      const E* rows = whole.a + s * kStrip * whole.lda;
      for (int64_t k = 0; k < whole.k; k += kStep) {
        if (!any_weight(rows + k, whole.lda, kStep)) continue;
        multiply<E, Into::sum>({rows + k, whole.lda, whole.b + k * whole.ldb, whole.ldb, kStep},
                               out + s * kStrip * layout_.width, layout_.width, 1, layout_.width / kLane);
      }
    }
  }
  static bool any_weight(const E* rows, int64_t ld, int64_t count) {
    Mask<float> bits{};
    for (int64_t r = 0; r < kStrip; ++r)
      for (int64_t k = 0; k < count; k += kLane) bits |= load(reinterpret_cast<const Bits<float>*>(rows + r * ld + k));
    return any(bits != Mask<float>{});
  }

  void finish(const Room& room, const Block& at) const {
    const int64_t row = (at.batch * call_.query_heads + at.head) * call_.queries + at.i;
    S* out = static_cast<S*>(const_cast<void*>(call_.out.data)) + at.batch * call_.out.batch + at.head * call_.out.head;
    for (int64_t r = 0; r < at.rows; ++r) {
      const RowResult result = weigher_.finish(room.rows, r);
      S* to = out + (at.i + r) * call_.out.token;
      const float* sum = room.out + r * layout_.width;
      for (int64_t d = 0; d < call_.value_dim; d += kLane)
        store_some(to + d, call_.value_dim - d, load(sum + d) * result.factor);
      if (call_.stats) {
        call_.stats[row + r] = result.shift;
        call_.stats[call_.batch * call_.query_heads * call_.queries + row + r] = result.kept;
      }
      if (call_.lse) call_.lse[row + r] = result.lse;
    }
  }

  const AttentionCall& call_;
  const Weigher<E>& weigher_;
  const Layout<E> layout_;
  const Dropout dropout_;
  const int threads_;
  int64_t rows_ = kRows, columns_ = kColumns<E>;  // of a tile
  Arena arena_;
  int64_t keys_at_ = 0, values_at_ = 0, room_at_ = 0;
};

}  // namespace manymax::MANYMAX_ISA
