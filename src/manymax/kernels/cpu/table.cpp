// What this instruction set offers, by name.
#include "kernels.h"

#define MM_QUOTE(name) #name
#define MM_NAME(name) MM_QUOTE(name)
#define MM_ENTRY(map, forward, backward, reads_weights) {#map, forward, backward, reads_weights},

namespace manymax::MANYMAX_ISA {
namespace {

constexpr RowsEntry kRows[] = {MM_ROWS(MM_ENTRY)};

}  // namespace

const Kernels kernels = {MM_NAME(MANYMAX_ISA), kRows, sizeof(kRows) / sizeof(kRows[0])};

}  // namespace manymax::MANYMAX_ISA
