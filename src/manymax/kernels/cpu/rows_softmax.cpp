// softmax and its kin.
#include "clipped.h"
#include "kernels.h"
#include "maps_ratio.h"
#include "ratio_total.h"

namespace manymax::MANYMAX_ISA {
namespace {

template <class C>
using Softmax_ = RatioForward<C, Softmax>;
template <class C>
using Softmax1_ = RatioForward<C, Softmax1>;
template <class C>
using Clipped = RatioForward<C, ClippedSoftmax>;
template <class C>
using LogSoftmax = LogForward<C, Softmax>;
template <class C>
using LogSumExp = TotalForward<C, Softmax>;
template <class C>
using LogSumExpBackward = TotalBackward<C, Softmax>;

}  // namespace

void clipped_softmax_forward(const RowsCall& call) { run<Clipped>(call); }
void clipped_softmax_backward(const RowsCall& call) { run<ClippedBackward>(call); }
void softmax_forward(const RowsCall& call) { run<Softmax_>(call); }
void softmax1_forward(const RowsCall& call) { run<Softmax1_>(call); }
void exp_backward(const RowsCall& call) { run<ExpBackward>(call); }
void log_softmax_forward(const RowsCall& call) { run<LogSoftmax>(call); }
void log_softmax_backward(const RowsCall& call) { run<LogExpBackward>(call); }
void logsumexp_forward(const RowsCall& call) { run<LogSumExp>(call); }
void logsumexp_backward(const RowsCall& call) { run<LogSumExpBackward>(call); }

}  // namespace manymax::MANYMAX_ISA
