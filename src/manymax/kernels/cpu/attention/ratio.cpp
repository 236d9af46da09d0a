// Ratio maps other than softmax's.
#include "../kernels.h"
#include "run.h"

namespace manymax::MANYMAX_ISA {
namespace {

template <class E>
using MakeSoftplus = RatioWeigher<SoftplusAttention<ElementOf<E>::kEntries == 2>, E>;
template <class E>
using MakeStableMax = RatioWeigher<StableMaxAttention<ElementOf<E>::kEntries == 2>, E>;
template <class E>
using MakePower = RatioWeigher<ScaledAttention<Power>, E>;
template <class E>
using MakeSpherical = RatioWeigher<ScaledAttention<Spherical>, E>;
template <class E>
using MakeTaylor = RatioWeigher<ScaledAttention<Taylor>, E>;

}  // namespace

MM_ATTENTION_MAP(softplus, MakeSoftplus)
MM_ATTENTION_MAP(stablemax, MakeStableMax)
MM_ATTENTION_MAP(power_softmax, MakePower)
MM_ATTENTION_MAP(spherical_softmax, MakeSpherical)
MM_ATTENTION_MAP(taylor_softmax, MakeTaylor)

}  // namespace manymax::MANYMAX_ISA
