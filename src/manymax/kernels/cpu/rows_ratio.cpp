// Ratio maps other than softmax's.
#include "kernels.h"
#include "maps_ratio.h"
#include "ratio_log.h"

namespace manymax::MANYMAX_ISA {
namespace {

#define MM_RATIO(Map)                        \
  template <class C>                         \
  using Map##Forward = RatioForward<C, Map>; \
  template <class C>                         \
  using Map##Backward = RatioBackward<C, Map>;
MM_RATIO(Softplus)
MM_RATIO(StableMax)
MM_RATIO(Power)
MM_RATIO(MeanPower)
MM_RATIO(Spherical)
MM_RATIO(Taylor)
template <class C>
using LogStableMax = LogForward<C, StableMax>;
template <class C>
using LogStableMaxBackward = LogBackward<C, StableMax>;

}  // namespace

void softplus_forward(const RowsCall& call) { run<SoftplusForward>(call); }
void softplus_backward(const RowsCall& call) { run<SoftplusBackward>(call); }
void stablemax_forward(const RowsCall& call) { run<StableMaxForward>(call); }
void stablemax_backward(const RowsCall& call) { run<StableMaxBackward>(call); }
void log_stablemax_forward(const RowsCall& call) { run<LogStableMax>(call); }
void log_stablemax_backward(const RowsCall& call) { run<LogStableMaxBackward>(call); }
void power_softmax_forward(const RowsCall& call) {
  const bool of_mean = call.options[2] != 0;
  of_mean ? run<MeanPowerForward>(call) : run<PowerForward>(call);
}
void power_softmax_backward(const RowsCall& call) {
  const bool of_mean = call.options[2] != 0;
  of_mean ? run<MeanPowerBackward>(call) : run<PowerBackward>(call);
}
void spherical_softmax_forward(const RowsCall& call) { run<SphericalForward>(call); }
void spherical_softmax_backward(const RowsCall& call) { run<SphericalBackward>(call); }
void taylor_softmax_forward(const RowsCall& call) { run<TaylorForward>(call); }
void taylor_softmax_backward(const RowsCall& call) { run<TaylorBackward>(call); }

}  // namespace manymax::MANYMAX_ISA
