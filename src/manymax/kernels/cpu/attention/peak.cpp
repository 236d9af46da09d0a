// What the products of attention reach when their operands are in cache: the limit that benchmarks compare attention with.
#include "../kernels.h"
#include "../parallel.h"
#include "arena.h"

namespace manymax::MANYMAX_ISA {
namespace {

// C of 16 strips and a panel, and a sum over 128 elements: A and C lie in the second-level cache, a panel of B in the first.
template <class E>
double multiply_again(int threads, int64_t repeats) {
  constexpr int64_t kStrips = 16, kRows = kStrips * kStrip, kDepth = 128;
  Arena arena;
  const int64_t a = arena.reserve<E>(kRows * kDepth, threads), b = arena.reserve<E>(kDepth * kPanel, threads);
  const int64_t c = arena.reserve<float>(kRows * kPanel, threads);
  arena.allocate();
  parallel(threads, [&](const Team& team) {
    E* const rows = arena.at<E>(a, kRows * kDepth, team.rank);
    E* const panel = arena.at<E>(b, kDepth * kPanel, team.rank);
    __builtin_memset(rows, 0, kRows * kDepth * sizeof(E));
    __builtin_memset(panel, 0, kDepth * kPanel * sizeof(E));
    for (int64_t i = 0; i < repeats; ++i)
      multiply<E, Into::fresh>({rows, kDepth, panel, kPanel, kDepth}, arena.at<float>(c, kRows * kPanel, team.rank), kPanel,
                               kStrips, kPanelVectors);
  });
  return 2.0 * kRows * kPanel * kDepth * ElementOf<E>::kEntries * static_cast<double>(threads) * static_cast<double>(repeats);
}

}  // namespace

double peak(DType dtype, int threads, int64_t repeats) {
#if defined(__AVX512BF16__)
  if (dtype == DType::bf16) return multiply_again<Pair>(threads, repeats);
#else
  (void)dtype;
#endif
  return multiply_again<float>(threads, repeats);
}

}  // namespace manymax::MANYMAX_ISA
