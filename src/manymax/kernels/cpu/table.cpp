// What this instruction set offers, by name.
#include "kernels.h"

#define MM_QUOTE(name) #name
#define MM_NAME(name) MM_QUOTE(name)

namespace manymax::MANYMAX_ISA {
namespace {

constexpr RowsEntry kRows[] = {
    {"softmax", softmax_forward, softmax_backward, true},
};

}  // namespace

const Kernels kernels = {MM_NAME(MANYMAX_ISA), kRows, sizeof(kRows) / sizeof(kRows[0])};

}  // namespace manymax::MANYMAX_ISA
