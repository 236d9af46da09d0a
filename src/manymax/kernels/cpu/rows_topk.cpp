// Softmax of the scores that are no lower than the k-th largest. A first visit takes the largest entry of each lane of four
// vectors: the k-th largest of those is no higher than that of the row, and few entries of a long row are as high.
#include "kernels.h"
#include "run.h"
#include "select.h"

namespace manymax::MANYMAX_ISA {
namespace {

template <class C>
struct TopkSoftmax : KernelTraits {
  using Part = int;
  static constexpr bool kSplits = false;
  static constexpr int64_t kTops = kUnroll * kLanes<C>;
  int64_t k;
  Softmax<C> map;

  explicit TopkSoftmax(const RowsCall& call) : k(static_cast<int64_t>(call.options[0])), map(call.options) {}
  // For the candidates twice: the search for the cut uses one copy up.
  static int64_t room(int64_t n) { return 2 * (n + kLanes<C>); }

  MM_OUTLINE void row(const Reader<C>& x, const Reader<C>&, const Writer<C>& y, int64_t n) const {
    C tops[kTops];
    const C largest = largest_of_lanes(x, n, tops);
    const bool bad = !(largest < kInfinity<C>);
    C* const kept = y.room;
    C cut = bad ? -kInfinity<C> : bound(tops);
    const int64_t count = bad ? 0 : candidates_from(x, n, cut, kept);
    if (count > k) {
      C* const copy = kept + n + kLanes<C>;
      __builtin_memcpy(copy, kept, static_cast<size_t>(count) * sizeof(C));
      cut = kth_largest(copy, count, k);
    }
    const Vec<C> at = splat(map.usable(largest)), from = splat(cut);
    const C sum = sum_over(kept, count, -kInfinity<C>, [&](Vec<C> v) { return keep(v >= from, map.numerator(v, at)); });
    const Vec<C> by = splat(bad ? static_cast<C>(__builtin_nan("")) : sum == 0 ? C{0} : 1 / sum);
    chunks(0, n, [&](int64_t i, int64_t length) {
      write_entries(y, i, length, x.get(i, length), [&](Vec<C> v) {
        const Mask<C> in = bad ? v != -kInfinity<C> : (v >= from) & (v != -kInfinity<C>);
        return keep(in, map.numerator(v, at) * by);
      });
    });
  }

  // Fill `tops` with the largest entry of each lane; return the largest of all, NaN if there is a NaN.
  static C largest_of_lanes(const Reader<C>& x, int64_t n, C* tops) {
    Mask<C> bad{};
    Vec<C> top[kUnroll] = {splat(-kInfinity<C>), splat(-kInfinity<C>), splat(-kInfinity<C>), splat(-kInfinity<C>)};
    chunks(0, n, [&](int64_t i, int64_t length) {
      const C* in = x.get(i, length);
      const auto get = [&](int64_t j, auto span) { return load(in + j, span, -kInfinity<C>); };
      const auto work = [&](Vec<C> v, int u) {
        bad |= v != v;
        return top[u] = max(v, top[u]);
      };
      vectors<C>(length, get, work, Nowhere{});
    });
    for (int u = 0; u < kUnroll; ++u) store(tops + u * kLanes<C>, top[u]);
    return any(bad) ? static_cast<C>(__builtin_nan("")) : max_of<C>(top);
  }

  // A number that the k-th largest entry is no lower than.
  C bound(C* tops) const {
    const int64_t count = append_above(tops, tops, kTops, -kInfinity<C>);
    return count >= k ? kth_largest(tops, count, k) : -kInfinity<C>;
  }

  static int64_t candidates_from(const Reader<C>& x, int64_t n, C low, C* kept) {
    int64_t count = 0;
    chunks(0, n, [&](int64_t i, int64_t length) {
      count += append_where(kept + count, x.get(i, length), length,
                            [&](Vec<C> v) { return (v >= low) & (v > -kInfinity<C>); });
    });
    return count;
  }
};

}  // namespace

void topk_softmax_forward(const RowsCall& call) { run<TopkSoftmax>(call); }

}  // namespace manymax::MANYMAX_ISA
