// softmax and its kin: numerators exp(x - shift).
#include "kernels.h"
#include "ratio.h"

namespace manymax::MANYMAX_ISA {
namespace {

template <class C>
struct Softmax {
  explicit Softmax(const RowsCall&) {}
  C shift(const C* x, int64_t n) const {
    return max_over(x, n, [](Vec<C> v) { return v; });
  }
  Vec<C> numerator(Vec<C> x, Vec<C> shift) const { return exp_nonpositive<C>(x - shift); }
  C rescale(C from, C to) const { return scalar_exp(from - to); }
  C extra(C) const { return 0; }
};

template <class C>
using SoftmaxForward = RatioForward<C, Softmax>;

}  // namespace

void softmax_forward(const RowsCall& call) { run<SoftmaxForward>(call); }
void softmax_backward(const RowsCall& call) { run<ExpBackward>(call); }

}  // namespace manymax::MANYMAX_ISA
