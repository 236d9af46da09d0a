#include "../kernels.h"

namespace manymax::MANYMAX_ISA {

void linear_backward(const LinearCall&) {}

}  // namespace manymax::MANYMAX_ISA
