// Pointwise maps: a weight depends on its own score and on n, the number of visible entries of its row.
#include "block_loops.h"
#include "kernels.h"
#include "maps_pointwise.h"
#include "run.h"
#include "total.h"

namespace manymax::MANYMAX_ISA {
namespace {

template <class C, template <class> class MapOf, bool kBackward>
struct Pointwise : KernelTraits {
  using Part = int64_t;
  static constexpr bool kBlocks = true;
  MapOf<C> map;

  explicit Pointwise(const RowsCall& call) : map(call.options) {}

  // Most rows show all their entries: out of cache, write with that n while counting, and again if it was wrong.
  MM_OUTLINE void row(const Reader<C>& x, const Reader<C>& grad, const Writer<C>& y, int64_t n) const {
    const bool overwrites = x.source.data == y.data || grad.source.data == y.data;
    if (n <= kChunk || overwrites || !map.counts())
      return write(map.counts() ? partial(x, grad, 0, n) : n, x, grad, y, 0, n, n);
    const Part visible = visit(n, x, grad, y, 0, n, true);
    if (visible != n) visit(visible, x, grad, y, 0, n, false);
  }
  MM_MEMBER void block(const Block<C>& b) const {
    PerRow<C> at = per_row<C>(splat(map.at(1)));
    if (map.counts()) {
      const Vec<C> visible = visible_entries(b);
      const C n = static_cast<C>(b.n), most = map.at(n);  // a logarithm, for sigmoid: once where all rows show everything
      at = per_row_of<C>([&](int r) { return visible[r] == n ? most : map.at(visible[r] > 0 ? visible[r] : C{1}); });
    }
    if constexpr (kBackward) {
      write_rows(b, ScoresAndGrads<C>{-kInfinity<C>},
                 [&](Two<C> in, int r) { return keep(in.x != -kInfinity<C>, map.slope(in.x, at[r]) * in.g); });
    } else {
      write_rows(b, Scores<C>{-kInfinity<C>}, [&](Vec<C> v, int r) { return map.weight(v, at[r]); });
    }
  }
  MM_OUTLINE Part partial(const Reader<C>& x, const Reader<C>&, int64_t first, int64_t last) const {
    Part visible = 0;
    chunks(first, last, [&](int64_t k, int64_t count) { visible += count_visible(x.get(k, count), count); });
    return visible;
  }
  Part merge(Part a, Part b) const { return a + b; }
  MM_OUTLINE void write(Part visible, const Reader<C>& x, const Reader<C>& grad, const Writer<C>& y,
                        int64_t first, int64_t last, int64_t) const {
    visit(visible, x, grad, y, first, last, false);
  }

  MM_OUTLINE Part visit(Part visible, const Reader<C>& x, const Reader<C>& grad, const Writer<C>& y,
                        int64_t first, int64_t last, bool count_too) const {
    const Vec<C> at = splat(map.at(static_cast<C>(visible > 0 ? visible : 1)));
    Part found = 0;
    chunks(first, last, [&](int64_t k, int64_t count) {
      const C* in = x.get(k, count);
      if (count_too) found += count_visible(in, count);
      if constexpr (kBackward) {
        write_entries(y, k, count, in, grad.get(k, count),
                      [&](Vec<C> v, Vec<C> g) { return keep(v != -kInfinity<C>, map.slope(v, at) * g); });
      } else {
        write_entries(y, k, count, in, [&](Vec<C> v) { return map.weight(v, at); });
      }
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
