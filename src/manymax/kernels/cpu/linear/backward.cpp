// The recurrence back, for every storage type.
#include "backward.h"

#include "../kernels.h"

namespace manymax::MANYMAX_ISA {

void linear_backward(const LinearCall& call) { run_linear<LinearBackward>(call); }

}  // namespace manymax::MANYMAX_ISA
