// Decoding, for every storage type.
#include "decode.h"
#include "run.h"

namespace manymax::MANYMAX_ISA {

MM_ATTENTION_KERNEL(decode, Decode)
MM_ATTENTION_PAIRS(decode, Decode)

}  // namespace manymax::MANYMAX_ISA
