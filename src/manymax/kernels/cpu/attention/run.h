// From a call to the kernels for its storage type: products of float, or of bfloat16 pairs where the machine multiplies those.
#pragma once

#include "backward.h"
#include "decode.h"
#include "forward.h"
#include "weighers.h"

namespace manymax::MANYMAX_ISA {

// body<S, E>() for the call's dtype.
template <class Body>
static void with_types(const AttentionCall& call, const Body& body) {
  switch (call.dtype) {
    case DType::f32: return body.template operator()<float, float>();
    case DType::f16: return body.template operator()<F16, float>();
#if defined(__AVX512BF16__)
    case DType::bf16: return body.template operator()<BF16, Pair>();
#else
    case DType::bf16: return body.template operator()<BF16, float>();
#endif
    case DType::f64: return;
  }
}

// `Make<E>` is the map's Weigher.
template <template <class> class Make>
static void run_forward(const AttentionCall& call) {
  with_types(call, [&]<class S, class E>() {
    const Make<E> weigher(call);
    Forward<S, E>(call, weigher).run();
  });
}

template <template <class> class Make>
static void run_backward(const AttentionCall& call) {
  with_types(call, [&]<class S, class E>() {
    const Make<E> weigher(call);
    Backward<S, E>(call, weigher).run();
  });
}

template <template <class> class Make>
static void run_decode(const AttentionCall& call) {
  with_types(call, [&]<class S, class E>() {
    const Make<E> weigher(call);
    Decode<S, E>(call, weigher).run();
  });
}

#define MM_ATTENTION_MAP(map, Make)                                                       \
  void map##_attention_forward(const AttentionCall& call) { run_forward<Make>(call); }   \
  void map##_attention_backward(const AttentionCall& call) { run_backward<Make>(call); } \
  void map##_attention_decode(const AttentionCall& call) { run_decode<Make>(call); }

}  // namespace manymax::MANYMAX_ISA
