// softmax and softmax1.
#include "../kernels.h"
#include "run.h"

namespace manymax::MANYMAX_ISA {
namespace {

template <class E>
using MakeSoftmax = RatioWeigher<SoftmaxAttention<ElementOf<E>::kEntries == 2>, E>;
template <class E>
using MakeSoftmax1 = RatioWeigher<Softmax1Attention<ElementOf<E>::kEntries == 2>, E>;

}  // namespace

MM_ATTENTION_MAP(softmax, MakeSoftmax)
MM_ATTENTION_MAP(softmax1, MakeSoftmax1)

}  // namespace manymax::MANYMAX_ISA
