// Compiled for the baseline: it must run on every machine.
#include "dispatch.h"

#include <cstring>

#include "isas.h"

namespace manymax {

// isas.h, which CMake writes, holds the compiled instruction sets, best first: X(avx512_bf16) X(avx512) X(avx2).
#define MM_DECLARE(isa)         \
  namespace isa {               \
  extern const Kernels kernels; \
  }
MANYMAX_ISAS(MM_DECLARE)
#undef MM_DECLARE

namespace {

bool runs(const char* isa) {
#if defined(__x86_64__) || defined(__i386__)
  __builtin_cpu_init();
  if (std::strcmp(isa, "generic") == 0) return true;
  const bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("bmi2");
  const bool avx512 = avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                      __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
  if (std::strcmp(isa, "avx2") == 0) return avx2;
  if (std::strcmp(isa, "avx512") == 0) return avx512;
  return avx512 && __builtin_cpu_supports("avx512bf16");
#else
  return isa != nullptr;  // neon is part of every aarch64, generic is compiled for what it runs on
#endif
}

}  // namespace

const Kernels* runnable(int i) {
#define MM_TABLE(isa) &isa::kernels,
  static const Kernels* const all[] = {MANYMAX_ISAS(MM_TABLE)};
#undef MM_TABLE
  for (const Kernels* kernels : all) {
    if (runs(kernels->isa) && i-- == 0) return kernels;
  }
  return nullptr;
}

const Kernels* choose(const char* forced) {
  if (forced == nullptr || *forced == '\0') return runnable(0);
  for (int i = 0; const Kernels* kernels = runnable(i); ++i) {
    if (std::strcmp(kernels->isa, forced) == 0) return kernels;
  }
  return nullptr;
}

}  // namespace manymax
