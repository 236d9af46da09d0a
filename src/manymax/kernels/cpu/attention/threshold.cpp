// Sparsemax and 1.5-entmax: forwards a tile holds whole rows, so that the cut can be found; backwards one visit of all tiles sums
// the slopes, and a second one knows their mean gradient.
#include "../kernels.h"
#include "../maps_threshold.h"
#include "run.h"

namespace manymax::MANYMAX_ISA {
namespace {

template <int kPower, class E>
struct ThresholdWeigher final : Weigher<E> {
  explicit ThresholdWeigher(const AttentionCall& call) : Weigher<E>(Scaling(call, 1)) {}

  bool whole_rows() const override { return true; }
  bool visits_twice() const override { return true; }

  // A row that sees nothing never comes to `weigh`: its cut is 0.
  void start(const Block&, RowState& rows) const override {
    for (int64_t r = 0; r < kRows; ++r) rows.shift[r] = rows.change[r] = 0;
    rows.changed = false;
  }

  void weigh(const Tile<E>& tile, RowState& rows) const override {
    const float sink = sink_of(*tile.at.call, this->scaling, tile.at.head);
    over_rows(tile, [&](int64_t r, const auto& drop) {
      bool bad = false;
      const Cut<float> cut = find_cut(tile, r, sink, bad);
      const VF largest = splat(cut.largest), tau = splat(cut.tau), rest = splat(cut.rest);
      for (int64_t c = 0; c < tile.at.columns; c += kLane) {
        const VF x = tile.score(r, c), weight = above_cut<float, kPower>(x, largest, tau, rest);
        tile.put(r, c, drop(c, bad ? keep(x != -kInfinity<float>, splat(__builtin_nanf(""))) : weight));
      }
      rows.shift[r] = bad ? __builtin_nanf("") : cut.largest;
      rows.change[r] = cut.tau + cut.rest;
    });
  }

  // `bad` is set for a row with NaN or +inf.
  static Cut<float> find_cut(const Tile<E>& tile, int64_t r, float sink, bool& bad) {
    VF top = splat(sink);
    Mask<float> nan{};
    for (int64_t c = 0; c < tile.at.columns; c += kLane) {
      const VF x = tile.score(r, c);
      nan |= x != x;
      top = max(x, top);
    }
    const float largest = reduce_max(top);
    bad = any(nan) || !(largest < kInfinity<float>);
    if (bad) return {0, 0, 0};
    const float low = largest - kPower;
    int64_t count = 0;
    if (sink > low) tile.scratch[count++] = sink;
    for (int64_t c = 0; c < tile.at.columns; c += kLane) {
      const VF x = tile.score(r, c);
      count += append(tile.scratch + count, x, x > splat(low));
    }
    return search_cut<float, kPower>(tile.scratch, count, largest);
  }

  RowResult finish(const RowState& rows, int64_t r) const override { return {1, rows.shift[r], rows.change[r], 0}; }

  // The weight, and its slope before the mean is taken off: 1 or the weight's root, 0 where the weight is 0.
  struct Root {
    VF weight, slope;
  };
  static MM_MEMBER Root root(VF x, float largest, float cut) {
    const VF root = max(VF{}, x * (1.0f / kPower) - largest - cut);
    return kPower == 1 ? Root{root, keep(root != VF{}, splat(1.0f))} : Root{root * root, root};
  }

  void sum(const Tile<E>& tile, const RowGradients& rows, const float* d_weights) const override {
    over_rows(tile, [&](int64_t r, const auto& drop) {
      VF sum{}, dot{};
      for (int64_t c = 0; c < tile.at.columns; c += kLane) {
        const VF slope = root(tile.score(r, c), rows.shift[r], rows.kept[r]).slope;
        sum += slope;
        dot = fma(slope, drop(c, load(d_weights + r * tile.ld + c)), dot);
      }
      rows.sum[r] += reduce_add(sum), rows.dot[r] += reduce_add(dot);
    });
  }

  static float mean(float sink, const RowGradients& rows, int64_t r) {
    const float sum = rows.sum[r] + root(splat(sink), rows.shift[r], rows.kept[r]).slope[0];
    return sum == 0 ? 0 : rows.dot[r] / sum;
  }

  void back(const Tile<E>& tile, const RowGradients& rows, float* d_weights) const override {
    const float sink = sink_of(*tile.at.call, this->scaling, tile.at.head);
    over_rows(tile, [&](int64_t r, const auto& drop) {
      const VF share = splat(mean(sink, rows, r));
      for (int64_t c = 0; c < tile.at.columns; c += kLane) {
        const Root w = root(tile.score(r, c), rows.shift[r], rows.kept[r]);
        float* d = d_weights + r * tile.ld + c;
        store(d, w.slope * (drop(c, load(d)) - share));
        tile.put_back(r, c, drop(c, w.weight));
      }
    });
  }
  float sink_gradient(float sink, const RowGradients& row) const override {
    return -root(splat(sink), *row.shift, *row.kept).slope[0] * mean(sink, row, 0);
  }
};

template <class E>
using MakeSparsemax = ThresholdWeigher<1, E>;
template <class E>
using MakeEntmax15 = ThresholdWeigher<2, E>;

}  // namespace

MM_ATTENTION_MAP(sparsemax, MakeSparsemax)
MM_ATTENTION_MAP(entmax15, MakeEntmax15)

}  // namespace manymax::MANYMAX_ISA
