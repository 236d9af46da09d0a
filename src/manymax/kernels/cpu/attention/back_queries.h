// Backwards: what belongs to queries. Their rows and the gradients of their outputs are packed once for all blocks of keys.
#pragma once

#include "back_layout.h"

namespace manymax::MANYMAX_ISA {

// All heads of all batch entries, one behind the other.
template <class S, class E>
class BackQueries {
 public:
  static constexpr int64_t kEntries = ElementOf<E>::kEntries;

  BackQueries(const AttentionCall& call, const Weigher<E>& weigher, const BackSizes& sizes)
      : call_(call), weigher_(weigher), sizes_(sizes) {}

  void reserve(Arena& arena) {
    const int64_t rows = sizes_.heads * sizes_.queries;
    query_ = arena.reserve<E>(rows * sizes_.dim / kEntries);
    d_out_ = arena.reserve<E>(rows * sizes_.value_dim / kEntries);
    if (kEntries > 1) query_pairs_ = arena.reserve<E>(rows * sizes_.dim / kEntries);
    if (kEntries > 1) d_out_pairs_ = arena.reserve<E>(rows * sizes_.value_dim / kEntries);
    d_query_ = arena.reserve<float>(sizes_.segments * rows * sizes_.dim);
    per_row_ = arena.reserve<float>(5 * rows);
    arena_ = &arena;
  }

  // Rows from query i of a head on: as A and as B of a product.
  const E* query(int64_t head, int64_t i) const { return at(query_, head, i, sizes_.dim / kEntries); }
  const E* d_out(int64_t head, int64_t i) const { return at(d_out_, head, i, sizes_.value_dim / kEntries); }
  const E* query_tokens(int64_t head, int64_t i) const {
    return at(kEntries > 1 ? query_pairs_ : query_, head, i, sizes_.dim / kEntries);
  }
  const E* d_out_tokens(int64_t head, int64_t i) const {
    return at(kEntries > 1 ? d_out_pairs_ : d_out_, head, i, sizes_.value_dim / kEntries);
  }
  float* d_query(int64_t segment, int64_t head, int64_t i) const {
    return arena_->at<float>(d_query_) + ((segment * sizes_.heads + head) * sizes_.queries + i) * sizes_.dim;
  }
  RowGradients rows(int64_t head, int64_t i) const {
    float* row = arena_->at<float>(per_row_) + head * sizes_.queries + i;
    const int64_t all = sizes_.heads * sizes_.queries;
    return {row, row + all, row + 2 * all, row + 3 * all, row + 4 * all};
  }

  // Prepare kRows queries from i on.
  void pack(int64_t head, int64_t i) const {
    const int64_t b = head / call_.query_heads, h = head % call_.query_heads;
    const int64_t left = call_.queries - i, count = left < kRows ? left : kRows;
    const auto q = stretch<S>(call_.query, b, h, i, count, call_.dim);
    const auto g = stretch<S>(call_.d_out, b, h, i, count, call_.value_dim);
    const auto o = stretch<S>(call_.out, b, h, i, count, call_.value_dim);
    pack_rows(q, kRows, sizes_.dim, weigher_.scaling.product, const_cast<E*>(query(head, i)));
    pack_rows(g, kRows, sizes_.value_dim, 1, const_cast<E*>(d_out(head, i)));
    if constexpr (kEntries > 1) {
      pack_tokens(q, kRows, sizes_.dim, const_cast<E*>(query_tokens(head, i)));
      pack_tokens(g, kRows, sizes_.value_dim, const_cast<E*>(d_out_tokens(head, i)));
    }
    const RowGradients rows = this->rows(head, i);
    const int64_t row = head * call_.queries + i;
    for (int64_t r = 0; r < kRows; ++r) {
      const bool there = r < count;
      rows.shift[r] = there ? call_.stats[row + r] : 1;
      rows.kept[r] = there ? call_.stats[sizes_.heads * call_.queries + row + r] : 0;
      const float d_lse = there && call_.d_lse ? call_.d_lse[row + r] : 0;
      rows.share[r] = there ? dot(g.data + r * g.step, o.data + r * o.step) - d_lse : 0;
      rows.sum[r] = rows.dot[r] = 0;
    }
  }

  void clear(int64_t segment, int64_t head) const {
    __builtin_memset(d_query(segment, head, 0), 0, static_cast<size_t>(sizes_.queries * sizes_.dim) * sizeof(float));
  }

  // Sum the segments of kRows queries from i on, in their order.
  void write(int64_t head, int64_t i) const {
    const Tokens& x = call_.d_query;
    S* out = static_cast<S*>(const_cast<void*>(x.data)) + head / call_.query_heads * x.batch +
             head % call_.query_heads * x.head;
    for (int64_t r = i; r < i + kRows && r < call_.queries; ++r) {
      for (int64_t d = 0; d < call_.dim; d += kLane) {
        VF sum{};
        for (int64_t s = 0; s < sizes_.segments; ++s) sum += load(d_query(s, head, r) + d);
        store_some(out + r * x.token + d, call_.dim - d, sum * weigher_.scaling.to_query);
      }
    }
  }

 private:
  const E* at(int64_t offset, int64_t head, int64_t i, int64_t width) const {
    return arena_->at<E>(offset) + (head * sizes_.queries + i) * width;
  }
  float dot(const S* a, const S* b) const {
    VF sum{};
    for (int64_t d = 0; d < call_.value_dim; d += kLane) {
      const int64_t left = call_.value_dim - d;
      sum = fma(load_some(a + d, left), load_some(b + d, left), sum);
    }
    return reduce_add(sum);
  }

  const AttentionCall& call_;
  const Weigher<E>& weigher_;
  const BackSizes& sizes_;
  const Arena* arena_ = nullptr;
  int64_t query_ = 0, d_out_ = 0, query_pairs_ = 0, d_out_pairs_ = 0, d_query_ = 0, per_row_ = 0;
};

}  // namespace manymax::MANYMAX_ISA
