// Decoding of softmax attention in chunks of keys, with a maximum that runs along or with one that is set beforehand: what the claim
// flashdecoding-pp measures (Hong et al., 2023, FlashDecoding++, arXiv 2311.01282).
//
// online_decode: numerators are relative to the largest score so far; where a chunk raises it, the row's sums are rescaled. Options:
// keys of a chunk; 1 to rescale after every chunk, as partial results that other processors hold need it.
// unified_decode: numerators are relative to phi and nothing is rescaled. A row with a score outside of (phi + a, phi + b) is computed
// again by online_decode's way. Options: keys of a chunk, phi, a, b; `stats` gets 1 for a row that was computed again, else 0.
//
// Chunks are multiples of two vectors. All keys are visible and nothing is added to the scores.
#include "../kernels.h"
#include "decode_products.h"
#include "layout.h"
#include "maps.h"

namespace manymax::MANYMAX_ISA {
namespace {

constexpr int64_t kStretch = 4096;  // keys of a task: 16 tasks a head at 64k keys

// What a row of scores contributes to its softmax, relative to `shift`.
struct Part {
  float shift, total;
  float low, high;  // the scores' range
};

template <class S, class E, bool kUnified>
class ChunkedDecode {
  static constexpr int64_t kEntries = ElementOf<E>::kEntries;
  using Map = SoftmaxAttention<kEntries == 2>;

 public:
  explicit ChunkedDecode(const AttentionCall& call)
      : call_(call),
        scaling_(call, Map::kUnit),
        layout_(call),
        threads_(threads_for(call)),
        chunk_(round_up(static_cast<int64_t>(call.options[0]), 2 * kLane)),
        splits_((call.keys + kStretch - 1) / kStretch),
        heads_(call.batch * call.key_heads),
        rows_(call.query_heads / call.key_heads * call.queries),
        always_(!kUnified && call.options[1] != 0),
        phi_(static_cast<float>(call.options[1] * kLog2E)),
        low_(static_cast<float>((call.options[1] + call.options[2]) * kLog2E)),
        high_(static_cast<float>((call.options[1] + call.options[3]) * kLog2E)) {}

  void run() {
    query_at_ = arena_.reserve<E>(heads_ * rows_ * layout_.step);
    parts_at_ = arena_.reserve<Part>(heads_ * rows_ * splits_);
    sums_at_ = arena_.reserve<float>(heads_ * rows_ * splits_ * layout_.width);
    scores_at_ = arena_.reserve<float>(rows_ * chunk_, threads_);
    pairs_at_ = arena_.reserve<Pair>(rows_ * chunk_ / 2, threads_);
    lanes_at_ = arena_.reserve<Lane>(rows_, threads_);
    arena_.allocate();
    Queue visits, again, finishing;
    parallel(threads_, [&](const Team& team) {
      int64_t task;
      if (team.rank == 0)
        for (int64_t row = 0; row < heads_ * rows_; ++row) pack(row);
      team.barrier();
      while (visits.next(heads_ * splits_, task)) visit<kUnified>(team, task / splits_, task % splits_, 0, rows_);
      team.barrier();
      if constexpr (kUnified) {
        while (again.next(heads_ * rows_, task)) check(team, task);
        team.barrier();
      }
      while (finishing.next(heads_ * rows_, task)) finish(task);
    });
  }

 private:
  // A row while its stretch is visited, lane by lane.
  struct Lane {
    alignas(64) float sum[kLane], low[kLane], high[kLane];
    float shift;
  };

  E* query(int64_t row) const { return arena_.at<E>(query_at_) + row * layout_.step; }
  Part& part(int64_t row, int64_t split) const { return arena_.at<Part>(parts_at_)[row / rows_ * splits_ * rows_ + split * rows_ + row % rows_]; }
  // A head's rows of a stretch follow each other, as add_values writes them.
  float* sums(int64_t head, int64_t split) const {
    return arena_.at<float>(sums_at_) + (head * splits_ + split) * rows_ * layout_.width;
  }

  void pack(int64_t row) const {
    const int64_t head = row / call_.queries, i = row % call_.queries;
    pack_rows(stretch<S>(call_.query, head / call_.query_heads, head % call_.query_heads, i, 1, call_.dim), 1,
              layout_.step * kEntries, scaling_.product, query(row));
  }

  // One stretch of keys for `count` rows of a head from `row` on.
  template <bool kFixed>
  void visit(const Team& team, int64_t head, int64_t split, int64_t row, int64_t count) const {
    const int64_t first = split * kStretch, last = first + kStretch < call_.keys ? first + kStretch : call_.keys;
    const auto keys = stretch<S>(call_.key, head / call_.key_heads, head % call_.key_heads, 0, 0, call_.dim);
    const auto values = stretch<S>(call_.value, head / call_.key_heads, head % call_.key_heads, 0, 0, call_.value_dim);
    float* scores = arena_.at<float>(scores_at_, rows_ * chunk_, team.rank);
    Pair* pairs = arena_.at<Pair>(pairs_at_, rows_ * chunk_ / 2, team.rank);
    Lane* lanes = arena_.at<Lane>(lanes_at_, rows_, team.rank);
    float* out = sums(head, split) + row * layout_.width;
    const E* weights = reinterpret_cast<const E*>(kEntries == 1 ? static_cast<void*>(scores) : pairs);
    begin(lanes, out, count, kFixed ? phi_ : -kInfinity<float>);
    for (int64_t j = first; j < last; j += chunk_) {
      const int64_t n = last - j < chunk_ ? last - j : chunk_;
      for (int64_t c = 0; c < n; c += kLane)
        for (int64_t r = 0; r < count; ++r)
          store(scores + r * chunk_ + c, dot_keys(query(head * rows_ + row + r), keys.data + (j + c) * keys.step, keys.step,
                                                  call_.keys - 1 - j - c, call_.dim));
      const Tile<E> tile{{}, kEntries == 1 ? 1 : scaling_.product, scores, chunk_, pairs, nullptr, nullptr};
      for (int64_t r = 0; r < count; ++r) {
        if constexpr (!kFixed) follow(tile, r, n, lanes[r], out + r * layout_.width);
        weigh<kFixed>(tile, r, n, lanes[r]);
      }
      add_values(count, weights, chunk_ / kEntries, values.data + j * values.step, values.step, n, call_.value_dim, out,
                 layout_.width);
    }
    for (int64_t r = 0; r < count; ++r) {
      const Lane& lane = lanes[r];
      part(head * rows_ + row + r, split) = {lane.shift, reduce_add(load(lane.sum)), -reduce_max(-load(lane.low)),
                                             reduce_max(load(lane.high))};
    }
  }

  void begin(Lane* lanes, float* out, int64_t count, float shift) const {
    __builtin_memset(out, 0, static_cast<size_t>(count * layout_.width) * sizeof(float));
    for (int64_t r = 0; r < count; ++r) {
      store(lanes[r].sum, VF{});
      store(lanes[r].low, splat(kInfinity<float>)), store(lanes[r].high, splat(-kInfinity<float>));
      lanes[r].shift = shift;
    }
  }

  // Raise a row's shift to the chunk's largest score, and rescale what it has summed.
  void follow(const Tile<E>& tile, int64_t r, int64_t n, Lane& lane, float* out) const {
    VF a = splat(-kInfinity<float>), b = a;
    int64_t c = 0;
    for (; c + 2 * kLane <= n; c += 2 * kLane) a = max(tile.score(r, c), a), b = max(tile.score(r, c + kLane), b);
    for (; c < n; c += kLane) a = max(first_lanes<float>(n - c < kLane ? n - c : kLane) ? tile.score(r, c) : a, a);
    a = max(a, b);
    if (!always_ && !any(a > splat(lane.shift))) return;
    const float largest = reduce_max(a), shift = largest > lane.shift ? largest : lane.shift;
    const VF change = exp2<false>(splat(lane.shift - shift));
    store(lane.sum, load(lane.sum) * change);
    for (int64_t d = 0; d < layout_.width; d += kLane) store(out + d, load(out + d) * change);
    lane.shift = shift;
  }

  template <bool kFixed>
  void weigh(const Tile<E>& tile, int64_t r, int64_t n, Lane& lane) const {
    const VF at = splat(lane.shift);
    VF a{}, b{}, low = load(lane.low), high = load(lane.high);
    const auto numerator = [&](int64_t c) {
      const VF x = tile.score(r, c);
      if constexpr (kFixed) low = min(x, low), high = max(x, high);
      const VF w = exp2<kEntries == 2>(x - at);
      tile.put(r, c, w);
      return w;
    };
    int64_t c = 0;
    for (; c + 2 * kLane <= n; c += 2 * kLane) a += numerator(c), b += numerator(c + kLane);
    if (c + kLane <= n) a += numerator(c), c += kLane;
    if (c < n) {  // behind the last key scores are those of the last key
      const VF w = keep(first_lanes<float>(n - c), numerator(c));
      tile.put(r, c, w), a += w;
    }
    store(lane.sum, load(lane.sum) + (a + b));
    if constexpr (kFixed) store(lane.low, low), store(lane.high, high);
  }

  // Compute a row again if a score lies outside of the range; NaNs are the same either way.
  void check(const Team& team, int64_t row) const {
    bool inside = true;
    for (int64_t s = 0; s < splits_; ++s) inside = inside && part(row, s).low > low_ && part(row, s).high < high_;
    if (call_.stats) call_.stats[row] = inside ? 0.0f : 1.0f;
    if (inside) return;
    for (int64_t s = 0; s < splits_; ++s) visit<false>(team, row / rows_, s, row % rows_, 1);
  }

  void finish(int64_t row) const {
    const int64_t head = row / call_.queries;
    S* out = static_cast<S*>(const_cast<void*>(call_.out.data)) + head / call_.query_heads * call_.out.batch +
             head % call_.query_heads * call_.out.head + row % call_.queries * call_.out.token;
    float shift = -kInfinity<float>, total = 0;
    for (int64_t s = 0; s < splits_; ++s) shift = part(row, s).shift > shift ? part(row, s).shift : shift;
    for (int64_t s = 0; s < splits_; ++s) total += part(row, s).total * change(row, s, shift);
    for (int64_t d = 0; d < call_.value_dim; d += kLane) {
      VF sum{};
      for (int64_t s = 0; s < splits_; ++s)
        sum = fma(load(sums(row / rows_, s) + row % rows_ * layout_.width + d), splat(change(row, s, shift)), sum);
      store_some(out + d, call_.value_dim - d, sum * (1 / total));
    }
    if (call_.lse) call_.lse[row] = scalar_log(total) + shift * static_cast<float>(kLn2);
  }
  float change(int64_t row, int64_t split, float shift) const {
    return part(row, split).shift == shift ? 1.0f : exp2<false>(splat(part(row, split).shift - shift))[0];
  }

  const AttentionCall& call_;
  const Scaling scaling_;
  const Layout<E> layout_;
  const int threads_;
  const int64_t chunk_, splits_, heads_, rows_;  // rows_: queries of a key head
  const bool always_;
  const float phi_, low_, high_;  // in units of ln 2, as scores are
  Arena arena_;
  int64_t query_at_ = 0, parts_at_ = 0, sums_at_ = 0, scores_at_ = 0, pairs_at_ = 0, lanes_at_ = 0;
};

template <bool kUnified>
void decode(const AttentionCall& call) {
  if (call.dtype == DType::f32) return ChunkedDecode<float, float, kUnified>(call).run();
#if defined(__AVX512BF16__)
  if (call.dtype == DType::bf16) return ChunkedDecode<BF16, Pair, kUnified>(call).run();
#else
  if (call.dtype == DType::bf16) return ChunkedDecode<BF16, float, kUnified>(call).run();
#endif
  ChunkedDecode<F16, float, kUnified>(call).run();
}

}  // namespace

void online_decode(const AttentionCall& call) { decode<false>(call); }
void unified_decode(const AttentionCall& call) { decode<true>(call); }

}  // namespace manymax::MANYMAX_ISA
