#include "../kernels.h"

namespace manymax::MANYMAX_ISA {

void linear_step(const LinearCall&) {}

}  // namespace manymax::MANYMAX_ISA
