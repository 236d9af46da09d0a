// softmax and its kin: numerators exp(x - shift), with the row's maximum as shift.
#include "kernels.h"
#include "ratio_log.h"

namespace manymax::MANYMAX_ISA {
namespace {

template <class C>
struct Softmax {
  explicit Softmax(const RowsCall&) {}
  C shift(const C* x, int64_t n) const {
    return max_over(x, n, [](Vec<C> v) { return v; });
  }
  C usable(C shift) const { return shift == -kInfinity<C> ? C{0} : shift; }
  Vec<C> numerator(Vec<C> x, Vec<C> shift) const { return exp_nonpositive<C>(x - shift); }
  Vec<C> slope(Vec<C> x, Vec<C> shift) const { return numerator(x, shift); }
  C rescale(C from, C to) const { return scalar_exp(from - to); }
  C extra(C) const { return 0; }
  Vec<C> finish(Vec<C> w) const { return w; }
  Vec<C> log_numerator(Vec<C> x, Vec<C> shift) const { return x - shift; }
  Vec<C> log_slope(Vec<C>) const { return splat(C{1}); }
  C log_scale(C shift) const { return shift; }
};

// One more score of 0 in the sum: the shift is never below 0, so that exp(-shift) does not overflow.
template <class C>
struct Softmax1 : Softmax<C> {
  using Softmax<C>::Softmax;
  C usable(C shift) const { return shift > 0 ? shift : C{0}; }
  C extra(C shift) const { return scalar_exp(-shift); }
};

template <class C>
using Softmax_ = RatioForward<C, Softmax>;
template <class C>
using Softmax1_ = RatioForward<C, Softmax1>;
template <class C>
using LogSoftmax = LogForward<C, Softmax>;
template <class C>
using LogSoftmaxBackward = LogBackward<C, Softmax>;
template <class C>
using LogSumExp = TotalForward<C, Softmax>;
template <class C>
using LogSumExpBackward = TotalBackward<C, Softmax>;

}  // namespace

void softmax_forward(const RowsCall& call) { run<Softmax_>(call); }
void softmax1_forward(const RowsCall& call) { run<Softmax1_>(call); }
void exp_backward(const RowsCall& call) { run<ExpBackward>(call); }
void log_softmax_forward(const RowsCall& call) { run<LogSoftmax>(call); }
void log_softmax_backward(const RowsCall& call) { run<LogSoftmaxBackward>(call); }
void logsumexp_forward(const RowsCall& call) { run<LogSumExp>(call); }
void logsumexp_backward(const RowsCall& call) { run<LogSumExpBackward>(call); }

}  // namespace manymax::MANYMAX_ISA
