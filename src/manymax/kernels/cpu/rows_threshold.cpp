// Threshold maps on rows; maps_threshold.h finds the cut.
#include "kernels.h"
#include "maps_threshold.h"
#include "run.h"

namespace manymax::MANYMAX_ISA {
namespace {

// kPower 1: sparsemax, 2: 1.5-entmax.
template <class C, int kPower>
struct Threshold : KernelTraits {
  using Part = int;
  static constexpr bool kSplits = false;

  explicit Threshold(const RowsCall&) {}
  // A compressing store writes a whole vector.
  static int64_t room(int64_t n) { return n + kLanes<C>; }

  MM_OUTLINE void row(const Reader<C>& x, const Reader<C>&, const Writer<C>& y, int64_t n) const {
    int64_t count = 0;
    C largest = candidates(x, n, y.room, count);
    const Cut<C> cut = largest < kInfinity<C> ? search_cut<C, kPower>(y.room, count, largest) : Cut<C>{largest, largest, largest};
    const Vec<C> top = splat(cut.largest), tau = splat(cut.tau), rest = splat(cut.rest);
    const bool bad = !(largest < kInfinity<C>);
    chunks(0, n, [&](int64_t k, int64_t length) {
      write_entries(y, k, length, x.get(k, length), [&](Vec<C> v) {
        const Vec<C> weight = above_cut<C, kPower>(v, top, tau, rest);
        return bad ? keep(v != -kInfinity<C>, splat(static_cast<C>(__builtin_nan("")))) : weight;
      });
    });
  }

  // Keep entries within 1 / kScale of the largest so far; return the largest score, NaN if there is a NaN.
  static C candidates(const Reader<C>& x, int64_t n, C* kept, int64_t& count) {
    C largest = -kInfinity<C>;
    bool nan = false;
    chunks(0, n, [&](int64_t k, int64_t length) {
      const C* in = x.get(k, length);
      Mask<C> bad{};
      const C top = max_over(in, length, [&](Vec<C> v) {
        bad |= v != v;
        return v;
      });
      for (int i = 0; i < kLanes<C>; ++i) nan |= bad[i] != 0;
      if (top > largest) largest = top;
      const C low = largest - kPower;
      if (top > low) count += append_above(kept + count, in, length, low);
    });
    return nan ? static_cast<C>(__builtin_nan("")) : largest;
  }
};

// r (grad - sum of r grad / sum of r), with r = 1 or sqrt(w) where w > 0.
template <class C, int kPower>
struct ThresholdBackward : KernelTraits {
  struct Part {
    C sum, dot;
  };
  static constexpr bool kReadsScores = false;

  explicit ThresholdBackward(const RowsCall&) {}

  static MM_MEMBER Vec<C> root(Vec<C> w) {
    return keep(w != Vec<C>{}, kPower == 1 ? (w == w ? splat(C{1}) : w) : sqrt(w));
  }
  MM_OUTLINE void row(const Reader<C>& w, const Reader<C>& grad, const Writer<C>& y, int64_t n) const {
    write(partial(w, grad, 0, n), w, grad, y, 0, n, n);
  }
  MM_OUTLINE Part partial(const Reader<C>& w, const Reader<C>& grad, int64_t first, int64_t last) const {
    Part part{0, 0};
    chunks(first, last, [&](int64_t k, int64_t count) {
      const C* in = w.get(k, count);
      part.sum += sum_over(in, count, C{0}, root);
      part.dot += sum_over(in, grad.get(k, count), count, C{0},
                           [](Vec<C> v, Vec<C> g) { return keep(v != Vec<C>{}, root(v) * g); });
    });
    return part;
  }
  Part merge(Part a, Part b) const { return {a.sum + b.sum, a.dot + b.dot}; }
  MM_OUTLINE void write(Part part, const Reader<C>& w, const Reader<C>& grad, const Writer<C>& y,
                        int64_t first, int64_t last, int64_t) const {
    const Vec<C> mean = splat(part.sum == 0 ? C{0} : part.dot / part.sum);
    chunks(first, last, [&](int64_t k, int64_t count) {
      write_entries(y, k, count, w.get(k, count), grad.get(k, count),
                    [&](Vec<C> v, Vec<C> g) { return keep(v != Vec<C>{}, root(v) * (g - mean)); });
    });
  }
};

template <class C>
using Sparsemax = Threshold<C, 1>;
template <class C>
using SparsemaxBackward = ThresholdBackward<C, 1>;
template <class C>
using Entmax15 = Threshold<C, 2>;
template <class C>
using Entmax15Backward = ThresholdBackward<C, 2>;

}  // namespace

void sparsemax_forward(const RowsCall& call) { run<Sparsemax>(call); }
void sparsemax_backward(const RowsCall& call) { run<SparsemaxBackward>(call); }
void entmax15_forward(const RowsCall& call) { run<Entmax15>(call); }
void entmax15_backward(const RowsCall& call) { run<Entmax15Backward>(call); }

}  // namespace manymax::MANYMAX_ISA
