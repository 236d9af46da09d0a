// Sparsemax and 1.5-entmax: weights max(s - tau, 0)^p with p = 1 or 2, s = x or x / 2, and tau such that they sum to 1.
//
// tau lies less than 1 below the largest s. One visit of the row keeps the entries above that cut, which for scores of
// any spread are few; Newton's method then runs on them alone. It starts from the left, where the sum is a convex
// function of tau, so that tau only grows and entries below it are dropped for good. No sort.
#include "kernels.h"
#include "loops.h"
#include "run.h"

namespace manymax::MANYMAX_ISA {
namespace {

template <class C>
struct Cut {
  C largest;  // of s; NaN if the row holds NaN or +inf
  C tau;      // relative to the largest
  C rest;     // to subtract after tau: near 1 in size, tau alone is rounded by half an ulp of 1, n weights by as much
};

// Append the entries of x above `low` to `kept`; a whole vector is written each time.
#if defined(__AVX512F__)
MM_INLINE int64_t append(float* kept, VF x, Mask<float> above) {
  const __mmask16 m = _mm512_movepi32_mask(bit_cast<__m512i>(above));
  _mm512_storeu_ps(kept, _mm512_maskz_compress_ps(m, x));
  return __builtin_popcount(m);
}
MM_INLINE int64_t append(double* kept, VD x, Mask<double> above) {
  const __mmask8 m = _mm512_movepi64_mask(bit_cast<__m512i>(above));
  _mm512_storeu_pd(kept, _mm512_maskz_compress_pd(m, x));
  return __builtin_popcount(m);
}
#else
template <class C, class V, class M>
MM_INLINE int64_t append(C* kept, V x, M above) {
  int64_t count = 0;
  for (int i = 0; i < kLanes<C>; ++i) {
    kept[count] = x[i];
    count -= above[i];
  }
  return count;
}
#endif

template <class C>
MM_INLINE int64_t append_above(C* kept, const C* x, int64_t n, C low) {
  constexpr int L = kLanes<C>;
  int64_t count = 0, i = 0;
  for (; i + L <= n; i += L) {
    const Vec<C> v = load(x + i);
    count += append(kept + count, v, v > splat(low));
  }
  if (i < n) {
    const Vec<C> v = load(x + i, n - i, -kInfinity<C>);
    count += append(kept + count, v, v > splat(low));
  }
  return count;
}

// kPower 1: sparsemax, 2: 1.5-entmax.
template <class C, int kPower>
struct Threshold {
  using Part = int;
  static constexpr bool kScratch = true;
  static constexpr bool kSplits = false;
  static constexpr bool kReadsScores = true;
  static constexpr C kScale = C{1} / kPower;
  static constexpr C kTolerance = sizeof(C) == 4 ? static_cast<C>(1e-6) : static_cast<C>(1e-15);

  explicit Threshold(const RowsCall&) {}

  void row(const Reader<C>& x, const Reader<C>&, const Writer<C>& y, int64_t n) const {
    int64_t count = 0;
    C largest = candidates(x, n, y.scratch, count);
    const Cut<C> cut = largest < kInfinity<C> ? search(y.scratch, count, largest) : Cut<C>{largest, largest, largest};
    const Vec<C> top = splat(cut.largest), tau = splat(cut.tau), rest = splat(cut.rest);
    const bool bad = !(largest < kInfinity<C>);
    chunks(0, n, [&](int64_t k, int64_t length) {
      map_over(x.get(k, length), y.begin(k), length, [&](Vec<C> v) {
        const Vec<C> root = max(Vec<C>{}, v * kScale - top - tau - rest);
        const Vec<C> weight = kPower == 1 ? root : root * root;
        return bad ? keep(v != -kInfinity<C>, splat(static_cast<C>(__builtin_nan("")))) : weight;
      });
      y.end(k, length);
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

  // Newton's method on the candidates, which are made relative to the largest on the way and dropped as tau passes them.
  static Cut<C> search(C* kept, int64_t count, C largest) {
    if (count == 0) return {0, 0, 0};  // nothing is visible
    const C top = largest * kScale;
    map_over(kept, kept, count, [&](Vec<C> v) { return v * kScale - top; });
    C tau = -1, before = kInfinity<C>;
    for (int step = 0; step < 64; ++step) {
      count = append_above(kept, kept, count, tau);
      const Vec<C> at = splat(tau);
      const C roots = sum_over(kept, count, tau, [&](Vec<C> v) { return v - at; });
      const C sum = kPower == 1 ? roots : sum_over(kept, count, tau, [&](Vec<C> v) { return (v - at) * (v - at); });
      const C rest = (sum - 1) / (kPower == 1 ? static_cast<C>(count) : 2 * roots);
      if (sum - 1 <= kTolerance || sum >= before) return {top, tau, rest};
      before = sum;
      tau += rest;
    }
    return {top, tau, 0};
  }
};

// r (grad - sum of r grad / sum of r), with r = 1 or sqrt(w) where w > 0.
template <class C, int kPower>
struct ThresholdBackward {
  struct Part {
    C sum, dot;
  };
  static constexpr bool kScratch = false;
  static constexpr bool kSplits = true;
  static constexpr bool kReadsScores = false;

  explicit ThresholdBackward(const RowsCall&) {}

  static MM_MEMBER Vec<C> root(Vec<C> w) {
    return keep(w != Vec<C>{}, kPower == 1 ? (w == w ? splat(C{1}) : w) : sqrt(w));
  }
  void row(const Reader<C>& w, const Reader<C>& grad, const Writer<C>& y, int64_t n) const {
    write(partial(w, grad, 0, n), w, grad, y, 0, n, n);
  }
  Part partial(const Reader<C>& w, const Reader<C>& grad, int64_t first, int64_t last) const {
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
  void write(Part part, const Reader<C>& w, const Reader<C>& grad, const Writer<C>& y, int64_t first, int64_t last,
             int64_t) const {
    const Vec<C> mean = splat(part.sum == 0 ? C{0} : part.dot / part.sum);
    chunks(first, last, [&](int64_t k, int64_t count) {
      map_over(w.get(k, count), grad.get(k, count), y.begin(k), count,
               [&](Vec<C> v, Vec<C> g) { return keep(v != Vec<C>{}, root(v) * (g - mean)); });
      y.end(k, count);
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
