// A few tokens of the recurrence, for every storage type.
#include "step.h"

#include "../kernels.h"
#include "sweep.h"

namespace manymax::MANYMAX_ISA {

void linear_step(const LinearCall& call) { run_linear<LinearStep>(call); }

}  // namespace manymax::MANYMAX_ISA
