// The k-th largest of some scores, by halving the range of numbers that it can be. Numbers are halved as the integers that
// order them, so that a score of 10^30 among others costs no more than the bits of a number in steps; what is known to lie
// above or below is dropped on the way, half of the rest as a rule.
#pragma once

#include "maps_threshold.h"

namespace manymax::MANYMAX_ISA {

// An integer for each number, in the same order, and back.
template <class C>
MM_INLINE Bits<C> ordered(Bits<C> bits) {
  return bits ^ ((bits >> (8 * sizeof(C) - 1)) & static_cast<Bits<C>>(~(Bits<C>{1} << (8 * sizeof(C) - 1))));
}

template <class C>
MM_INLINE C smallest_of(const C* x, int64_t n) {
  return -max_over(x, n, [](Vec<C> v) { return v == -kInfinity<C> ? v : -v; });
}

// x holds n >= k >= 1 finite numbers and is used up.
template <class C>
static C kth_largest(C* x, int64_t n, int64_t k) {
  Bits<C> low = ordered<C>(bit_cast<Bits<C>>(smallest_of(x, n)));
  Bits<C> high = ordered<C>(bit_cast<Bits<C>>(max_over(x, n, [](Vec<C> v) { return v; })));
  while (low < high && k < n) {
    const Bits<C> middle = (low >> 1) + (high >> 1) + ((low | high) & 1);  // rounded up, and nothing overflows
    const Vec<C> pivot = splat(bit_cast<C>(ordered<C>(middle)));
    const int64_t above = count_where(x, n, [&](Vec<C> v) { return v >= pivot; });
    if (above >= k) {
      low = middle;
      n = append_where(x, x, n, [&](Vec<C> v) { return v >= pivot; });
    } else {
      high = middle - 1;
      k -= above;
      n = append_where(x, x, n, [&](Vec<C> v) { return v < pivot; });
    }
  }
  return k < n ? bit_cast<C>(ordered<C>(low)) : smallest_of(x, n);
}

}  // namespace manymax::MANYMAX_ISA
