// Attention forwards, for every storage type.
#include "forward.h"
#include "run.h"

namespace manymax::MANYMAX_ISA {

MM_ATTENTION_KERNEL(forward, Forward)
MM_ATTENTION_PAIRS(forward, Forward)

}  // namespace manymax::MANYMAX_ISA
