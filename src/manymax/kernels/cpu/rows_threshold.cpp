// Threshold maps on rows; maps_threshold.h finds the cut.
#include "kernels.h"
#include "maps_entmax.h"
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
    const C largest = candidates(x, n, C{kPower}, y.room, count);
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
};

template <class C>
struct EntmaxForward : KernelTraits {
  using Part = int;
  static constexpr bool kSplits = false;
  Entmax<C> map;

  explicit EntmaxForward(const RowsCall& call) : map(call.options) {}
  static int64_t room(int64_t n) { return n + kLanes<C>; }

  MM_OUTLINE void row(const Reader<C>& x, const Reader<C>&, const Writer<C>& y, int64_t n) const {
    int64_t count = 0;
    const C largest = candidates(x, n, map.reach(), y.room, count);
    const bool bad = !(largest < kInfinity<C>);
    const Level<C> level = bad ? Level<C>{} : map.search(y.room, count, largest);
    const Vec<C> top = splat(largest == -kInfinity<C> ? C{0} : largest);
    chunks(0, n, [&](int64_t k, int64_t length) {
      write_entries(y, k, length, x.get(k, length), [&](Vec<C> v) {
        return keep(v != -kInfinity<C>, bad ? splat(static_cast<C>(__builtin_nan(""))) : map.weight(v - top, level));
      });
    });
  }
};

// The derivative of a weight at a constant cut, from the weight: 1 or sqrt(w), or w to the power of 2 - alpha.
template <class C, int kPower>
struct RootSlope {
  explicit RootSlope(const double*) {}
  MM_MEMBER Vec<C> operator()(Vec<C> w) const {
    return keep(w != Vec<C>{}, kPower == 1 ? (w == w ? splat(C{1}) : w) : sqrt(w));
  }
};
template <class C>
struct PowerSlope {
  C power;
  explicit PowerSlope(const double* options) : power(static_cast<C>(2 - options[0])) {}
  MM_MEMBER Vec<C> operator()(Vec<C> w) const { return keep(w != Vec<C>{}, exp<C>(logs_of<C>(w) * power)); }
};

// r (grad - sum of r grad / sum of r), with r the slope where w > 0.
template <class C, class Slope>
struct ThresholdBackward : KernelTraits {
  struct Part {
    C sum, dot;
  };
  static constexpr bool kReadsScores = false;

  Slope slope;

  explicit ThresholdBackward(const RowsCall& call) : slope(call.options) {}

  MM_OUTLINE void row(const Reader<C>& w, const Reader<C>& grad, const Writer<C>& y, int64_t n) const {
    write(partial(w, grad, 0, n), w, grad, y, 0, n, n);
  }
  MM_OUTLINE Part partial(const Reader<C>& w, const Reader<C>& grad, int64_t first, int64_t last) const {
    Part part{0, 0};
    chunks(first, last, [&](int64_t k, int64_t count) {
      const C* in = w.get(k, count);
      part.sum += sum_over(in, count, C{0}, slope);
      part.dot += sum_over(in, grad.get(k, count), count, C{0},
                           [&](Vec<C> v, Vec<C> g) { return keep(v != Vec<C>{}, slope(v) * g); });
    });
    return part;
  }
  Part merge(Part a, Part b) const { return {a.sum + b.sum, a.dot + b.dot}; }
  MM_OUTLINE void write(Part part, const Reader<C>& w, const Reader<C>& grad, const Writer<C>& y,
                        int64_t first, int64_t last, int64_t) const {
    const Vec<C> mean = splat(part.sum == 0 ? C{0} : part.dot / part.sum);
    chunks(first, last, [&](int64_t k, int64_t count) {
      write_entries(y, k, count, w.get(k, count), grad.get(k, count),
                    [&](Vec<C> v, Vec<C> g) { return keep(v != Vec<C>{}, slope(v) * (g - mean)); });
    });
  }
};

template <class C>
using Sparsemax = Threshold<C, 1>;
template <class C>
using SparsemaxBackward = ThresholdBackward<C, RootSlope<C, 1>>;
template <class C>
using Entmax15 = Threshold<C, 2>;
template <class C>
using Entmax15Backward = ThresholdBackward<C, RootSlope<C, 2>>;
template <class C>
using EntmaxBackward = ThresholdBackward<C, PowerSlope<C>>;

}  // namespace

void sparsemax_forward(const RowsCall& call) { run<Sparsemax>(call); }
void sparsemax_backward(const RowsCall& call) { run<SparsemaxBackward>(call); }
void entmax15_forward(const RowsCall& call) { run<Entmax15>(call); }
void entmax15_backward(const RowsCall& call) { run<Entmax15Backward>(call); }
void entmax_forward(const RowsCall& call) { run<EntmaxForward>(call); }
void entmax_backward(const RowsCall& call) { run<EntmaxBackward>(call); }

}  // namespace manymax::MANYMAX_ISA
