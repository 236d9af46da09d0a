// Decoding: few queries against many keys. The queries of a key head's whole group go together, so that keys and values are read
// once, from where they lie; reading them is what takes the time. Threads share the keys in pieces, in four steps: scores, weights
// of whole rows, sums of values piece by piece, and the sum of these in order.
#pragma once

#include "decode_products.h"
#include "layout.h"

namespace manymax::MANYMAX_ISA {

// Keys of a piece. What is prefetched past its end, 16 KB, another thread fetches too: with 256 keys of 64, 32 KB in bfloat16, two
// threads read 26 GB/s of 32k keys, with longer pieces 40. Eight pieces a thread are enough for threads to end together.
inline constexpr int64_t kShortestPiece = 256, kLongestPiece = 4096;

template <class S, class E>
class Decode {
  static constexpr int64_t kEntries = ElementOf<E>::kEntries;

 public:
  Decode(const AttentionCall& call, const Weigher<E>& weigher)
      : call_(call), weigher_(weigher), layout_(call), dropout_(call), threads_(threads_for(call)) {
    const Range first = keys_of(call, 0, call.queries);
    begin_ = first.first / kPanel * kPanel;
    columns_ = round_up(first.last, kPanel) - begin_;
    groups_ = call.query_heads / call.key_heads;
    rows_ = groups_ * call.queries;
    heads_ = call.batch * call.key_heads;
    piece_ = between(round_up(columns_ * heads_ / (8 * threads_), kPanel), kShortestPiece, kLongestPiece);
    pieces_ = (columns_ + piece_ - 1) / piece_;
  }

  void run() {
    query_at_ = arena_.reserve<E>(heads_ * rows_ * layout_.step);
    scores_at_ = arena_.reserve<float>(heads_ * rows_ * columns_);
    if (kEntries > 1) pairs_at_ = arena_.reserve<Pair>(heads_ * rows_ * columns_ / 2);
    results_at_ = arena_.reserve<RowResult>(heads_ * rows_);
    sums_at_ = arena_.reserve<float>(heads_ * pieces_ * rows_ * layout_.width);
    scratch_at_ = arena_.reserve<float>(weigher_.whole_rows() ? columns_ + 64 : 0, threads_);
    arena_.allocate();
    Queue scoring, weighing, summing, finishing;
    parallel(threads_, [&](const Team& team) {
      int64_t task;
      if (team.rank == 0)
        for (int64_t head = 0; head < heads_; ++head) pack(head);
      team.barrier();
      while (scoring.next(heads_ * pieces_, task)) score(task / pieces_, task % pieces_);
      team.barrier();
      float* scratch = arena_.at<float>(scratch_at_, weigher_.whole_rows() ? columns_ + 64 : 0, team.rank);
      while (weighing.next(heads_ * rows_, task)) weigh(task, scratch);
      team.barrier();
      while (summing.next(heads_ * pieces_, task)) sum(task / pieces_, task % pieces_);
      team.barrier();
      while (finishing.next(heads_ * rows_, task)) finish(task);
    });
  }

 private:
  E* query(int64_t row) const { return arena_.at<E>(query_at_) + row * layout_.step; }
  float* scores(int64_t row) const { return arena_.at<float>(scores_at_) + row * columns_; }
  Pair* pairs(int64_t row) const { return arena_.at<Pair>(pairs_at_) + row * columns_ / 2; }
  float* sums(int64_t head, int64_t piece) const {
    return arena_.at<float>(sums_at_) + (head * pieces_ + piece) * rows_ * layout_.width;
  }
  // The block of one query's scores in a piece, or in all.
  Block block(int64_t row, int64_t j, int64_t columns) const {
    const int64_t head = row / call_.queries, i = row % call_.queries;
    return {&call_, head / call_.query_heads, head % call_.query_heads, i, 1, begin_ + j, columns};
  }
  int64_t columns_of(int64_t piece) const {
    const int64_t left = columns_ - piece * piece_;
    return left < piece_ ? left : piece_;
  }

  void pack(int64_t head) const {
    for (int64_t r = 0; r < rows_; ++r) {
      const int64_t row = head * rows_ + r;
      const Block at = block(row, 0, 0);
      pack_rows(stretch<S>(call_.query, at.batch, at.head, at.i, 1, call_.dim), 1, layout_.step * kEntries,
                weigher_.scaling.product, query(row));
    }
  }

  void score(int64_t head, int64_t piece) const {
    const int64_t j = piece * piece_, columns = columns_of(piece), first = begin_ + j;
    const auto keys = stretch<S>(call_.key, head / call_.key_heads, head % call_.key_heads, first, 0, call_.dim);
    for (int64_t c = 0; c < columns && first + c < call_.keys; c += kLane)
      for (int64_t r = 0; r < rows_; ++r)
        store(scores(head * rows_ + r) + j + c, dot_keys(query(head * rows_ + r), keys.data + c * keys.step, keys.step,
                                                         call_.keys - 1 - first - c, call_.dim));
    const float factor = kEntries == 1 ? 1 : weigher_.scaling.product;
    for (int64_t r = 0; r < rows_; ++r) {
      const Block at = block(head * rows_ + r, j, columns);
      const Sight sight = look(at);
      if (factor != 1 || needs_preparing(call_, weigher_.scaling, sight))
        prepare(at, weigher_.scaling, sight == Sight::none ? Sight::some : sight, factor, scores(head * rows_ + r) + j,
                columns_, nullptr);
    }
  }

  void weigh(int64_t row, float* scratch) const {
    RowState rows;
    const Block at = block(row, 0, columns_);
    weigher_.start(at, rows);
    weigher_.weigh({at, 1, scores(row), columns_, pairs(row), scratch, call_.dropout > 0 ? &dropout_ : nullptr}, rows);
    arena_.at<RowResult>(results_at_)[row] = weigher_.finish(rows, 0);
  }

  void sum(int64_t head, int64_t piece) const {
    const int64_t j = piece * piece_, left = call_.keys - begin_ - j, columns = columns_of(piece);
    const int64_t row = head * rows_;
    const E* weights = reinterpret_cast<const E*>(kEntries == 1 ? static_cast<void*>(scores(row)) : pairs(row)) + j / kEntries;
    float* out = sums(head, piece);
    __builtin_memset(out, 0, static_cast<size_t>(rows_ * layout_.width) * sizeof(float));
    const auto values = stretch<S>(call_.value, head / call_.key_heads, head % call_.key_heads, begin_ + j, 0, call_.value_dim);
    add_values(rows_, weights, columns_ / kEntries, values.data, values.step, left < columns ? left : columns, call_.value_dim,
               out, layout_.width);
  }

  void finish(int64_t row) const {
    const RowResult result = arena_.at<RowResult>(results_at_)[row];
    const Block at = block(row, 0, 0);
    S* out = static_cast<S*>(const_cast<void*>(call_.out.data)) + at.batch * call_.out.batch + at.head * call_.out.head +
             at.i * call_.out.token;
    for (int64_t d = 0; d < call_.value_dim; d += kLane) {
      VF sum{};
      for (int64_t p = 0; p < pieces_; ++p) sum += load(sums(row / rows_, p) + row % rows_ * layout_.width + d);
      store_some(out + d, call_.value_dim - d, sum * result.factor);
    }
    if (call_.lse) call_.lse[row] = result.lse;
  }

  const AttentionCall& call_;
  const Weigher<E>& weigher_;
  const Layout<E> layout_;
  const Dropout dropout_;
  const int threads_;
  int64_t begin_, columns_;         // of the keys that some query sees
  int64_t piece_, pieces_;
  int64_t groups_, rows_, heads_;     // rows_: queries of a key head
  Arena arena_;
  int64_t query_at_ = 0, scores_at_ = 0, pairs_at_ = 0, results_at_ = 0, sums_at_ = 0, scratch_at_ = 0;
};

}  // namespace manymax::MANYMAX_ISA
