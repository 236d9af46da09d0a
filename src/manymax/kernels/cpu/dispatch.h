// The instruction set in use.
#pragma once

#include "types.h"

namespace manymax {

// The i-th best instruction set that is compiled in and that this machine can run; null behind the last.
const Kernels* runnable(int i);

// The best one, or the one that `forced` names; null if there is none, or none of that name.
const Kernels* choose(const char* forced);

}  // namespace manymax
