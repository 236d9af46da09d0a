// Pointwise and ratio maps over tiles.
#pragma once

#include "maps.h"
#include "tile.h"

namespace manymax::MANYMAX_ISA {

// body(r, c, weight's factor by dropout) over a tile; kDrop false leaves 1 out of the arithmetic.
template <class E, class Body>
MM_INLINE void over_rows(const Tile<E>& tile, const Body& body) {
  if (tile.dropout) {
    for (int64_t r = 0; r < tile.at.rows; ++r) {
      const RowDropout dropout = tile.row_dropout(r);
      body(r, [&](int64_t c, VF w) { return w * dropout.factors(tile.at.j + c); });
    }
  } else {
    for (int64_t r = 0; r < tile.at.rows; ++r) body(r, [](int64_t, VF w) { return w; });
  }
}

template <class Map, class E>
struct PointwiseWeigher final : Weigher<E> {
  Map map;
  explicit PointwiseWeigher(const AttentionCall& call) : Weigher<E>(Scaling(call, Map::kUnit)), map(call.options) {}

  void start(const Block& at, RowState& rows) const override {
    for (int64_t r = 0; r < at.rows; ++r) {
      const int64_t n = map.counts() ? count_seen(*at.call, at.batch, at.head, at.i + r) : 1;
      rows.shift[r] = map.at(static_cast<float>(n > 0 ? n : 1));
    }
    rows.changed = false;
  }
  void weigh(const Tile<E>& tile, RowState& rows) const override {
    over_rows(tile, [&](int64_t r, const auto& drop) {
      const VF at = splat(rows.shift[r]);
      for (int64_t c = 0; c < tile.at.columns; c += kLane) tile.put(r, c, drop(c, map.weight(tile.score(r, c), at)));
    });
  }
  RowResult finish(const RowState& rows, int64_t r) const override { return {1, rows.shift[r], 0, 0}; }
  void back(const Tile<E>& tile, const RowGradients& rows, float* d_weights) const override {
    over_rows(tile, [&](int64_t r, const auto& drop) {
      const VF at = splat(rows.shift[r]);
      for (int64_t c = 0; c < tile.at.columns; c += kLane) {
        const VF x = tile.score(r, c);
        float* d = d_weights + r * tile.ld + c;
        store(d, map.slope(x, at) * drop(c, load(d)));
        tile.put_back(r, c, drop(c, map.weight(x, at)));
      }
    });
  }
  float sink_gradient(float, const RowGradients&) const override { return 0; }
};

template <class Map, class E>
struct RatioWeigher : Weigher<E> {
  Map map;
  explicit RatioWeigher(const AttentionCall& call) : Weigher<E>(Scaling(call, Map::kUnit)), map(call.options) {}

  void start(const Block& at, RowState& rows) const override {
    const float sink = sink_of(*at.call, this->scaling, at.head);
    const float largest = Map::kShifts ? map.size(splat(sink))[0] : -kInfinity<float>, shift = map.usable(largest);
    VF first{};
    if (sink != -kInfinity<float>) first[0] = map.numerator(splat(sink), splat(shift))[0];
    for (int64_t r = 0; r < kRows; ++r) {
      rows.largest[r] = largest, rows.shift[r] = shift, rows.change[r] = 1;
      store(rows.sums[r], first);
    }
    rows.changed = false;
  }

  void weigh(const Tile<E>& tile, RowState& rows) const override {
    if constexpr (Map::kShifts) raise(tile, rows);
    over_rows(tile, [&](int64_t r, const auto& drop) {
      const VF at = splat(rows.shift[r]);
      VF a{}, b{};
      for (int64_t c = 0; c < tile.at.columns; c += 2 * kLane) {
        const VF v = map.numerator(tile.score(r, c), at), w = map.numerator(tile.score(r, c + kLane), at);
        a += v, b += w;
        tile.put(r, c, drop(c, v)), tile.put(r, c + kLane, drop(c + kLane, w));
      }
      store(rows.sums[r], fma(load(rows.sums[r]), splat(rows.change[r]), a + b));
    });
  }

  // Raise the rows' shifts to the tile's largest scores. Late tiles rarely hold one: most rows stay, which costs one comparison.
  void raise(const Tile<E>& tile, RowState& rows) const {
    alignas(64) float before[kRows] = {};
    rows.changed = false;
    for (int64_t r = 0; r < tile.at.rows; ++r) {
      VF a = splat(-kInfinity<float>), b = a;
      for (int64_t c = 0; c < tile.at.columns; c += 2 * kLane) {
        a = max(map.size(tile.score(r, c)), a);
        b = max(map.size(tile.score(r, c + kLane)), b);
      }
      before[r] = rows.largest[r];
      a = max(a, b);
      if (!any(a > splat(rows.largest[r]))) continue;
      rows.largest[r] = reduce_max(a);
      rows.changed = true;
    }
    if (!rows.changed) return set_change(rows, tile.at.rows);
    for (int64_t r = 0; r < tile.at.rows; r += kLane) {
      const VF from = load(rows.shift + r);
      for (int64_t k = r; k < r + kLane; ++k) rows.shift[k] = map.usable(rows.largest[k]);
      // A row without an entry so far holds zeros, which an infinite change would turn into NaN.
      const VF change = map.rescale(from, load(rows.shift + r));
      store(rows.change + r, load(before + r) == -kInfinity<float> ? VF{} : change);
    }
  }
  static void set_change(RowState& rows, int64_t count) {
    for (int64_t r = 0; r < count; r += kLane) store(rows.change + r, splat(1.0f));
  }

  RowResult finish(const RowState& rows, int64_t r) const override {
    const float shift = rows.shift[r], total = rows.total(r) + map.extra(shift);
    if (total == 0) return {0, shift, 0, -kInfinity<float>};
    return {1 / total, shift, 1 / total, scalar_log(total / Map::kTimes) + map.log_scale(shift)};
  }

  void back(const Tile<E>& tile, const RowGradients& rows, float* d_weights) const override {
    over_rows(tile, [&](int64_t r, const auto& drop) {
      const VF at = splat(rows.shift[r]), factor = splat(rows.kept[r]), share = splat(rows.share[r]);
      for (int64_t c = 0; c < tile.at.columns; c += kLane) {
        const VF x = tile.score(r, c);
        float* d = d_weights + r * tile.ld + c;
        store(d, map.slope(x, at) * factor * (drop(c, load(d)) - share));
        tile.put_back(r, c, drop(c, map.numerator(x, at) * factor));
      }
    });
  }
  float sink_gradient(float sink, const RowGradients& row) const override {
    return sink == -kInfinity<float> ? 0.0f : -map.slope(splat(sink), splat(*row.shift))[0] * *row.kept * *row.share;
  }
};

}  // namespace manymax::MANYMAX_ISA
