// The functions of one instruction set, as table.cpp collects them.
#pragma once

#include "types.h"

namespace manymax::MANYMAX_ISA {

void softmax_forward(const RowsCall&);
void softmax_backward(const RowsCall&);

extern const Kernels kernels;

}  // namespace manymax::MANYMAX_ISA
