// The row kernels of one instruction set, as table.cpp collects them: MM_ROWS(X) X(map, forward, backward, reads weights).
#pragma once

#include "types.h"

#define MM_ROWS(X)                                                                      \
  X(clipped_softmax, clipped_softmax_forward, clipped_softmax_backward, false)          \
  X(entmax, entmax_forward, entmax_backward, true)                                      \
  X(entmax15, entmax15_forward, entmax15_backward, true)                                \
  X(log_softmax, log_softmax_forward, log_softmax_backward, true)                       \
  X(log_stablemax, log_stablemax_forward, log_stablemax_backward, false)                \
  X(logsumexp, logsumexp_forward, logsumexp_backward, false)                            \
  X(power_softmax, power_softmax_forward, power_softmax_backward, false)                \
  X(relu, relu_forward, relu_backward, false)                                           \
  X(sigmoid, sigmoid_forward, sigmoid_backward, false)                                  \
  X(softmax, softmax_forward, exp_backward, true)                                       \
  X(softmax1, softmax1_forward, exp_backward, true)                                     \
  X(softplus, softplus_forward, softplus_backward, false)                               \
  X(sparsemax, sparsemax_forward, sparsemax_backward, true)                             \
  X(spherical_softmax, spherical_softmax_forward, spherical_softmax_backward, false)    \
  X(squared_relu, squared_relu_forward, squared_relu_backward, false)                   \
  X(stablemax, stablemax_forward, stablemax_backward, false)                            \
  X(taylor_softmax, taylor_softmax_forward, taylor_softmax_backward, false)             \
  X(topk_softmax, topk_softmax_forward, exp_backward, true)

// The same for attention: MM_ATTENTIONS(X) X(map), each with forward, backward and decode.
#define MM_ATTENTIONS(X) \
  X(entmax15)            \
  X(power_softmax)       \
  X(relu)                \
  X(sigmoid)             \
  X(softmax)             \
  X(softmax1)            \
  X(softplus)            \
  X(sparsemax)           \
  X(spherical_softmax)   \
  X(squared_relu)        \
  X(stablemax)           \
  X(taylor_softmax)

// What claims measure: MM_STUDIES(ROWS, FORWARD, DECODE) with one of them around each name.
#define MM_STUDIES(ROWS, FORWARD, DECODE) \
  ROWS(two_pass)                          \
  ROWS(three_pass_recompute)              \
  ROWS(three_pass_reload)                 \
  ROWS(flash4_exp2)                       \
  FORWARD(flash4)                         \
  DECODE(online_decode)                   \
  DECODE(unified_decode)

// Rows and recurrences have no form of their own for dot products of bfloat16: AVX-512's serve there too, and are compiled
// once, which is a fifth of the time that all takes.
#ifndef MANYMAX_SHARED
#define MANYMAX_SHARED MANYMAX_ISA
#endif
namespace manymax::MANYMAX_SHARED {

#define MM_DECLARE(map, forward, backward, reads_weights) \
  void forward(const RowsCall&);                          \
  void backward(const RowsCall&);
MM_ROWS(MM_DECLARE)
#undef MM_DECLARE

void linear_forward(const LinearCall&);
void linear_backward(const LinearCall&);
void linear_step(const LinearCall&);

}  // namespace manymax::MANYMAX_SHARED

namespace manymax::MANYMAX_ISA {

#define MM_DECLARE(map)                           \
  void map##_attention_forward(const AttentionCall&);  \
  void map##_attention_backward(const AttentionCall&); \
  void map##_attention_decode(const AttentionCall&);
MM_ATTENTIONS(MM_DECLARE)
#undef MM_DECLARE

void cross_entropy(const LossCall&);
double peak(DType dtype, int threads, int64_t repeats);
#define MM_DECLARE_ROWS(name) void name(const RowsCall&);
#define MM_DECLARE_ATTENTION(name) void name(const AttentionCall&);
MM_STUDIES(MM_DECLARE_ROWS, MM_DECLARE_ATTENTION, MM_DECLARE_ATTENTION)
#undef MM_DECLARE_ROWS
#undef MM_DECLARE_ATTENTION

extern const Kernels kernels;

}  // namespace manymax::MANYMAX_ISA
