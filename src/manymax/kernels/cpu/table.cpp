// What this instruction set offers, by name.
#include "kernels.h"

#define MM_QUOTE(name) #name
#define MM_NAME(name) MM_QUOTE(name)
#define MM_ENTRY(map, forward, backward, reads_weights) {#map, MANYMAX_SHARED::forward, MANYMAX_SHARED::backward, reads_weights},
#define MM_ATTENTION(map) {#map, map##_attention_forward, map##_attention_backward, map##_attention_decode},
#define MM_ROWS_STUDY(name) {#name, name, {}},
#define MM_FORWARD_STUDY(name) {#name, nullptr, {#name, name, nullptr, nullptr}},
#define MM_DECODE_STUDY(name) {#name, nullptr, {#name, nullptr, nullptr, name}},

namespace manymax::MANYMAX_ISA {
namespace {

constexpr RowsEntry kRows[] = {MM_ROWS(MM_ENTRY)};
constexpr AttentionEntry kAttentions[] = {MM_ATTENTIONS(MM_ATTENTION){}};
constexpr Study kStudies[] = {MM_STUDIES(MM_ROWS_STUDY, MM_FORWARD_STUDY, MM_DECODE_STUDY)};

}  // namespace

const Kernels kernels = {MM_NAME(MANYMAX_ISA), kRows, sizeof(kRows) / sizeof(kRows[0]), kAttentions,
                         sizeof(kAttentions) / sizeof(kAttentions[0]) - 1,
                         {MANYMAX_SHARED::linear_forward, MANYMAX_SHARED::linear_backward, MANYMAX_SHARED::linear_step},
                         cross_entropy, peak, kStudies,
                         sizeof(kStudies) / sizeof(kStudies[0])};

}  // namespace manymax::MANYMAX_ISA
