// Pointwise maps: a weight depends on its own score and on n, the number of visible entries of its row.
#include "kernels.h"
#include "loops.h"
#include "maps_pointwise.h"
#include "run.h"

namespace manymax::MANYMAX_ISA {
namespace {

// How many of these entries are there at all.
template <class C>
MM_INLINE int64_t count_visible(const C* x, int64_t n) {
  constexpr int L = kLanes<C>;
  Mask<C> hidden{};  // less one for each; a chunk is far too short to overflow a lane
  int64_t i = 0;
  for (; i + L <= n; i += L) hidden += load(x + i) == -kInfinity<C>;
  if (i < n) hidden += load(x + i, n - i, C{0}) == -kInfinity<C>;
  int64_t count = n;
  for (int lane = 0; lane < L; ++lane) count += hidden[lane];
  return count;
}

template <class C, template <class> class MapOf, bool kBackward>
struct Pointwise {
  using Part = int64_t;
  static constexpr bool kScratch = false;
  static constexpr bool kSplits = true;
  static constexpr bool kReadsScores = true;
  MapOf<C> map;

  explicit Pointwise(const RowsCall& call) : map(call.options) {}

  // Most rows show all their entries: out of cache, write with that n while counting, and again if it was wrong.
  void row(const Reader<C>& x, const Reader<C>& grad, const Writer<C>& y, int64_t n) const {
    const bool overwrites = x.source.data == y.data || grad.source.data == y.data;
    if (n <= kChunk || overwrites || !map.counts())
      return write(map.counts() ? partial(x, grad, 0, n) : n, x, grad, y, 0, n, n);
    const Part visible = visit(n, x, grad, y, 0, n, true);
    if (visible != n) visit(visible, x, grad, y, 0, n, false);
  }
  Part partial(const Reader<C>& x, const Reader<C>&, int64_t first, int64_t last) const {
    Part visible = 0;
    chunks(first, last, [&](int64_t k, int64_t count) { visible += count_visible(x.get(k, count), count); });
    return visible;
  }
  Part merge(Part a, Part b) const { return a + b; }
  void write(Part visible, const Reader<C>& x, const Reader<C>& grad, const Writer<C>& y, int64_t first, int64_t last,
             int64_t) const {
    visit(visible, x, grad, y, first, last, false);
  }

  Part visit(Part visible, const Reader<C>& x, const Reader<C>& grad, const Writer<C>& y, int64_t first, int64_t last,
             bool count_too) const {
    const Vec<C> at = splat(map.at(static_cast<C>(visible > 0 ? visible : 1)));
    Part found = 0;
    chunks(first, last, [&](int64_t k, int64_t count) {
      const C* in = x.get(k, count);
      if (count_too) found += count_visible(in, count);
      if constexpr (kBackward) {
        map_over(in, grad.get(k, count), y.begin(k), count,
                 [&](Vec<C> v, Vec<C> g) { return keep(v != -kInfinity<C>, map.slope(v, at) * g); });
      } else {
        map_over(in, y.begin(k), count, [&](Vec<C> v) { return map.weight(v, at); });
      }
      y.end(k, count);
    });
    return found;
  }
};

#define MM_POINTWISE(Map)                         \
  template <class C>                              \
  using Map##Forward = Pointwise<C, Map, false>;  \
  template <class C>                              \
  using Map##Backward = Pointwise<C, Map, true>;
MM_POINTWISE(Sigmoid)
MM_POINTWISE(ReLU)
MM_POINTWISE(SquaredReLU)

}  // namespace

void sigmoid_forward(const RowsCall& call) { run<SigmoidForward>(call); }
void sigmoid_backward(const RowsCall& call) { run<SigmoidBackward>(call); }
void relu_forward(const RowsCall& call) { run<ReLUForward>(call); }
void relu_backward(const RowsCall& call) { run<ReLUBackward>(call); }
void squared_relu_forward(const RowsCall& call) { run<SquaredReLUForward>(call); }
void squared_relu_backward(const RowsCall& call) { run<SquaredReLUBackward>(call); }

}  // namespace manymax::MANYMAX_ISA
