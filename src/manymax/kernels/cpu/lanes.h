// Reductions of as many vectors as a vector has lanes, all at once: lane r of the result is what vector r reduces to. In
// turn each half of the vectors joins the other half, half the lanes from either; 3 instructions a vector, where one
// vector by itself takes 8.
#pragma once

#include "simd.h"

namespace manymax::MANYMAX_ISA {

template <int... I>
struct LaneList {};
template <int N, int... I>
struct CountTo : CountTo<N - 1, N - 1, I...> {};
template <int... I>
struct CountTo<0, I...> {
  using type = LaneList<I...>;
};

// Lanes without bit H of a and b, put where H is clear and where it is set; then the same of lanes with it.
template <class V, int H, int N, int... I>
MM_INLINE V low_lanes(V a, V b, LaneList<I...>) {
  return __builtin_shufflevector(a, b, ((I & H) ? (I ^ H) + N : I)...);
}
template <class V, int H, int N, int... I>
MM_INLINE V high_lanes(V a, V b, LaneList<I...>) {
  return __builtin_shufflevector(a, b, ((I & H) ? I + N : (I | H))...);
}

template <class C, int H, class Op>
MM_INLINE void join_lanes(Vec<C>* a, const Op& op) {
  using Lanes = typename CountTo<kLanes<C>>::type;
#pragma GCC unroll 16
  for (int i = 0; i < H; ++i)
    a[i] = op(low_lanes<Vec<C>, H, kLanes<C>>(a[i], a[i + H], Lanes{}),
              high_lanes<Vec<C>, H, kLanes<C>>(a[i], a[i + H], Lanes{}));
  if constexpr (H > 1) join_lanes<C, H / 2>(a, op);
}

template <class C, class Op>
MM_INLINE Vec<C> reduce_lanes(Vec<C> (&a)[kLanes<C>], const Op& op) {
  join_lanes<C, kLanes<C> / 2>(a, op);
  return a[0];
}

}  // namespace manymax::MANYMAX_ISA
