// Attention backwards, for every storage type.
#include "backward.h"
#include "run.h"

namespace manymax::MANYMAX_ISA {

MM_ATTENTION_KERNEL(backward, Backward)
MM_ATTENTION_PAIRS(backward, Backward)

}  // namespace manymax::MANYMAX_ISA
