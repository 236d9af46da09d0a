// Pointwise maps.
#include "../kernels.h"
#include "run.h"

namespace manymax::MANYMAX_ISA {
namespace {

template <class E>
using MakeSigmoid = PointwiseWeigher<SigmoidAttention<ElementOf<E>::kEntries == 2>, E>;
template <class E>
using MakeReLU = PointwiseWeigher<ReLUAttention, E>;
template <class E>
using MakeSquaredReLU = PointwiseWeigher<SquaredReLUAttention, E>;

}  // namespace

MM_ATTENTION_MAP(sigmoid, MakeSigmoid)
MM_ATTENTION_MAP(relu, MakeReLU)
MM_ATTENTION_MAP(squared_relu, MakeSquaredReLU)

}  // namespace manymax::MANYMAX_ISA
