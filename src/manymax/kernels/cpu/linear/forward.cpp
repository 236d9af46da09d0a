// The recurrence forwards, for every storage type.
#include "forward.h"

#include "../kernels.h"

namespace manymax::MANYMAX_ISA {

void linear_forward(const LinearCall& call) { run_linear<LinearForward>(call); }

}  // namespace manymax::MANYMAX_ISA
