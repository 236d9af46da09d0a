// Backwards: scores and weights are computed again tile by tile, and five products go with each. A task takes the keys of one key
// head, or of a segment of them, block by block: gradients of its keys and values stay in cache while all queries that see the
// block pass by. Gradients of queries are summed in memory, one copy a segment, so that the order of sums is fixed.
#pragma once

#include "additions.h"
#include "back_queries.h"

namespace manymax::MANYMAX_ISA {

template <class S, class E>
class Backward {
  static constexpr int64_t kEntries = ElementOf<E>::kEntries;
  using Room = BackRoom<E>;

 public:
  Backward(const AttentionCall& call, const Weigher<E>& weigher)
      : call_(call),
        weigher_(weigher),
        dropout_(call),
        threads_(threads_for(call)),
        sizes_(call, threads_),
        queries_(call, weigher, sizes_) {}

  void run() {
    Arena arena;
    queries_.reserve(arena);
    const int64_t room_at = arena.reserve<char>(Room::size(sizes_), threads_);
    arena.allocate();
    Queue packing, visits, blocks, results;
    const int64_t per_head = sizes_.queries / kRows, tasks = call_.batch * call_.key_heads;
    parallel(threads_, [&](const Team& team) {
      int64_t task;
      const Room room(arena.at<char>(room_at, Room::size(sizes_), team.rank), sizes_);
      while (packing.next(sizes_.heads * per_head, task)) queries_.pack(task / per_head, task % per_head * kRows);
      team.barrier();
      if (weigher_.visits_twice()) {
        while (visits.next(tasks, task)) visit(room, task, 0, 1, true);
        team.barrier();
      }
      const int64_t in_row = sizes_.in_order ? tasks : 1;
      while (blocks.next(sizes_.segments * tasks / in_row, task)) {
        for (int64_t k = 0; k < in_row; ++k) {
          const int64_t all = task * in_row + k;  // heads of a segment lie side by side
          visit(room, all % tasks, all / tasks, sizes_.segments, false);
        }
      }
      team.barrier();
      while (results.next(sizes_.heads * per_head, task)) queries_.write(task / per_head, task % per_head * kRows);
    });
    if (call_.d_sinks) sum_sinks();
  }

 private:
  // The blocks segment, segment + segments, ... of a key head, which balances causal work. `sums_only`: the first of two visits.
  void visit(const Room& room, int64_t key_head, int64_t segment, int64_t segments, bool sums_only) const {
    const int64_t groups = call_.query_heads / call_.key_heads;
    if (!sums_only)
      for (int64_t g = 0; g < groups; ++g) queries_.clear(segment, key_head * groups + g);
    for (int64_t block = segment; block < sizes_.blocks; block += segments) {
      const int64_t j = block * kBackColumns, left = round_up(call_.keys - j, kPanel);
      const int64_t columns = left < kBackColumns ? left : kBackColumns;
      pack_keys(room, key_head, j, columns);
      const Range seen = queries_of(call_, j, columns);
      for (int64_t g = 0; g < groups; ++g) {
        const int64_t head = key_head * groups + g, b = head / call_.query_heads, h = head % call_.query_heads;
        for (int64_t i = seen.first / kRows * kRows; i < seen.last; i += kRows) {
          const int64_t rows = call_.queries - i < kRows ? call_.queries - i : kRows;
          tile(room, {&call_, b, h, i, rows, j, columns}, head, segment, sums_only);
        }
      }
      if (!sums_only) write_keys(room, key_head, j);
    }
  }

  void pack_keys(const Room& room, int64_t key_head, int64_t j, int64_t columns) const {
    const int64_t b = key_head / call_.key_heads, h = key_head % call_.key_heads;
    const int64_t left = call_.keys - j, count = left < columns ? left : columns;
    const auto k = stretch<S>(call_.key, b, h, j, count, call_.dim);
    const auto v = stretch<S>(call_.value, b, h, j, count, call_.value_dim);
    pack_panels(k, columns, room.key_panels);
    pack_panels(v, columns, room.value_panels);
    pack_tokens(k, columns, sizes_.dim, room.keys);
    __builtin_memset(room.d_key, 0, static_cast<size_t>(kBackColumns * sizes_.dim) * sizeof(float));
    __builtin_memset(room.d_value, 0, static_cast<size_t>(kBackColumns * sizes_.value_dim) * sizeof(float));
  }

  // rows x panels of a tile.
  void scores(const E* rows, int64_t width, int64_t dim, const E* panels, const Block& at, float* out) const {
    const int64_t depth = round_up(dim, kEntries) / kEntries;
    for (int64_t c = 0; c < at.columns; c += kPanel)
      multiply<E, Into::fresh>({rows, width / kEntries, panels + c * depth, kPanel, depth}, out + c, kBackColumns,
                               (at.rows + kStrip - 1) / kStrip, kPanelVectors);
  }

  void tile(const Room& room, const Block& at, int64_t head, int64_t segment, bool sums_only) const {
    const Sight sight = look(at);
    if (sight == Sight::none) return;
    const Scaling& scaling = weigher_.scaling;
    scores(queries_.query(head, at.i), sizes_.dim, call_.dim, room.key_panels, at, room.scores);
    scores(queries_.d_out(head, at.i), sizes_.value_dim, call_.value_dim, room.value_panels, at, room.d_weights);
    float factor = kEntries == 1 ? 1 : scaling.product;
    float* slopes = scaling.cap != 0 ? room.slopes : nullptr;
    if (needs_preparing(call_, scaling, sight)) {
      prepare(at, scaling, sight, factor, room.scores, kBackColumns, slopes);
      factor = 1;
    }
    const Tile<E> tile{at, factor, room.scores, kBackColumns, nullptr, nullptr, call_.dropout > 0 ? &dropout_ : nullptr};
    const RowGradients rows = queries_.rows(head, at.i);
    if (sums_only) return weigher_.sum(tile, rows, room.d_weights);
    weigher_.back(tile, rows, room.d_weights);
    add_to_additions(at, room.d_weights, kBackColumns);
    if (slopes) multiply_entries(at, room.d_weights, slopes, kBackColumns);
    add_products(room, at, head, segment);
  }

  void add_products(const Room& room, const Block& at, int64_t head, int64_t segment) const {
    const int64_t strips = (at.rows + kStrip - 1) / kStrip, key_strips = (at.columns + kStrip - 1) / kStrip;
    const int64_t k = round_up(at.rows, kEntries) / kEntries;
    const E *weights, *d_scores, *d_scores_across;
    if constexpr (kEntries == 1) {
      weights = room.scores, d_scores = d_scores_across = room.d_weights;
    } else {
      pair_rows(at, room.scores, kBackColumns, room.weights, nullptr);
      pair_rows(at, room.d_weights, kBackColumns, room.d_scores, room.d_scores_across);
      weights = room.weights, d_scores = room.d_scores, d_scores_across = room.d_scores_across;
    }
    multiply<E, Into::sum, true>({weights, kBackColumns, queries_.d_out_tokens(head, at.i), sizes_.value_dim, k},
                                 room.d_value, sizes_.value_dim, key_strips, sizes_.value_dim / kLane);
    multiply<E, Into::sum, true>({d_scores, kBackColumns, queries_.query_tokens(head, at.i), sizes_.dim, k}, room.d_key,
                                 sizes_.dim, key_strips, sizes_.dim / kLane);
    multiply<E, Into::sum>({d_scores_across, kBackColumns / kEntries, room.keys, sizes_.dim, at.columns / kEntries},
                           queries_.d_query(segment, head, at.i), sizes_.dim, strips, sizes_.dim / kLane);
  }

  void write_keys(const Room& room, int64_t key_head, int64_t j) const {
    const Scaling& scaling = weigher_.scaling;
    // Packed float queries hold their factor already.
    const float packed = kEntries == 1 ? scaling.product : 1;
    write_tokens(call_.d_key, key_head, j, room.d_key, sizes_.dim, call_.dim, packed == 0 ? 0 : scaling.to_query / packed);
    write_tokens(call_.d_value, key_head, j, room.d_value, sizes_.value_dim, call_.value_dim, 1);
  }

  void write_tokens(const Tokens& to, int64_t key_head, int64_t j, const float* from, int64_t width, int64_t dim,
                    float factor) const {
    S* out = static_cast<S*>(const_cast<void*>(to.data)) + key_head / call_.key_heads * to.batch +
             key_head % call_.key_heads * to.head;
    for (int64_t k = j; k < j + kBackColumns && k < call_.keys; ++k, from += width)
      for (int64_t d = 0; d < dim; d += kLane) store_some(out + k * to.token + d, dim - d, load(from + d) * factor);
  }

  void sum_sinks() const {
    for (int64_t head = 0; head < sizes_.heads; ++head) {
      const float sink = sink_of(call_, weigher_.scaling, head % call_.query_heads);
      double sum = 0;
      for (int64_t i = 0; i < call_.queries; ++i) sum += weigher_.sink_gradient(sink, queries_.rows(head, i));
      call_.d_sinks[head] = static_cast<float>(sum / call_.temperature);
    }
  }

  const AttentionCall& call_;
  const Weigher<E>& weigher_;
  const Dropout dropout_;
  const int threads_;
  const BackSizes sizes_;
  BackQueries<S, E> queries_;
};

}  // namespace manymax::MANYMAX_ISA
