// The cross-entropy of a linear map, for every storage type.
#include "cross_entropy.h"

#include "../kernels.h"

namespace manymax::MANYMAX_ISA {

void cross_entropy(const LossCall& call) {
  if (call.dtype == DType::f32) return CrossEntropy<float, float>(call).run();
  if (call.dtype == DType::f16) return CrossEntropy<F16, float>(call).run();
#if defined(__AVX512BF16__)
  CrossEntropy<BF16, Pair>(call).run();
#else
  CrossEntropy<BF16, float>(call).run();
#endif
}

}  // namespace manymax::MANYMAX_ISA
