// From a call to the kernels: products of float, or of bfloat16 pairs where the machine multiplies those. The kernels know a map
// only as a Weigher, so that they are compiled once for all maps.
#pragma once

#include "weighers.h"

namespace manymax::MANYMAX_ISA {

void forward(const AttentionCall& call, const Weigher<float>& weigher);
void backward(const AttentionCall& call, const Weigher<float>& weigher);
void decode(const AttentionCall& call, const Weigher<float>& weigher);
#if defined(__AVX512BF16__)
void forward(const AttentionCall& call, const Weigher<Pair>& weigher);
void backward(const AttentionCall& call, const Weigher<Pair>& weigher);
void decode(const AttentionCall& call, const Weigher<Pair>& weigher);
#endif

// run(weigher), where Make<E> is the map's Weigher.
template <template <class> class Make, class Run>
static void with_weigher(const AttentionCall& call, const Run& run) {
#if defined(__AVX512BF16__)
  if (call.dtype == DType::bf16) return run(Make<Pair>(call));
#endif
  run(Make<float>(call));
}

template <template <class> class Make>
static void run_forward(const AttentionCall& call) {
  with_weigher<Make>(call, [&](const auto& weigher) { forward(call, weigher); });
}

#define MM_ATTENTION_MAP(map, Make)                                                                  \
  void map##_attention_forward(const AttentionCall& call) { run_forward<Make>(call); }               \
  void map##_attention_backward(const AttentionCall& call) {                                         \
    with_weigher<Make>(call, [&](const auto& weigher) { backward(call, weigher); });                 \
  }                                                                                                  \
  void map##_attention_decode(const AttentionCall& call) {                                           \
    with_weigher<Make>(call, [&](const auto& weigher) { decode(call, weigher); });                   \
  }

// Defines `function` by the class template Kernel<S, E>, for every storage type S of an element E.
#define MM_ATTENTION_KERNEL(function, Kernel)                                                             \
  void function(const AttentionCall& call, const Weigher<float>& weigher) {                               \
    if (call.dtype == DType::f32) return Kernel<float, float>(call, weigher).run();                       \
    if (call.dtype == DType::f16) return Kernel<F16, float>(call, weigher).run();                         \
    MM_ATTENTION_BF16(Kernel)                                                                             \
  }
#if defined(__AVX512BF16__)
#define MM_ATTENTION_BF16(Kernel)
#define MM_ATTENTION_PAIRS(function, Kernel)                                 \
  void function(const AttentionCall& call, const Weigher<Pair>& weigher) { \
    Kernel<BF16, Pair>(call, weigher).run();                               \
  }
#else
#define MM_ATTENTION_BF16(Kernel) Kernel<BF16, float>(call, weigher).run();
#define MM_ATTENTION_PAIRS(function, Kernel)
#endif

}  // namespace manymax::MANYMAX_ISA
