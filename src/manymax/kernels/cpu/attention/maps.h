// The maps as attention computes them: maps_ratio.h and maps_pointwise.h where those are fast enough, and otherwise the same
// formula over fast.h. Scores come in units of 1 / kUnit; slopes are derivatives in units of 1.
//
// A ratio map has, beside maps_ratio.h's numerator, slope, size and usable: log_scale(shift), the logarithm of what the shift
// divides numerators by, kTimes, what they are multiplied by, and extra and rescale. A pointwise map has at(n), weight and slope. kRough: weights will be rounded
// to bfloat16.
#pragma once

#include "../maps_pointwise.h"
#include "../maps_ratio.h"
#include "fast.h"

namespace manymax::MANYMAX_ISA {

inline constexpr double kLog2E = 1.4426950408889634, kLn2 = 0.6931471805599453;

template <bool kRough>
struct SoftmaxAttention {
  static constexpr double kUnit = kLog2E;
  static constexpr float kTimes = 1;
  static constexpr bool kShifts = true;
  explicit SoftmaxAttention(const double*) {}
  VF size(VF x) const { return x; }
  float usable(float shift) const { return shift == -kInfinity<float> ? 0.0f : shift; }
  VF numerator(VF x, VF shift) const { return exp2<kRough>(x - shift); }
  VF slope(VF x, VF shift) const { return numerator(x, shift); }
  VF rescale(VF from, VF to) const { return exp2<false>(from - to); }
  float extra(float) const { return 0; }
  float log_scale(float shift) const { return shift * static_cast<float>(kLn2); }
};

template <bool kRough>
struct Softmax1Attention : SoftmaxAttention<kRough> {
  using SoftmaxAttention<kRough>::SoftmaxAttention;
  float usable(float shift) const { return shift > 0 ? shift : 0.0f; }
  float extra(float shift) const { return __builtin_exp2f(-shift); }
};

struct UnshiftedAttention {
  static constexpr float kTimes = 1;
  static constexpr bool kShifts = false;
  explicit UnshiftedAttention(const double*) {}
  VF size(VF x) const { return x; }
  float usable(float) const { return 0; }
  VF rescale(VF, VF) const { return splat(1.0f); }
  float extra(float) const { return 0; }
  float log_scale(float) const { return 0; }
};

// log(1 + e^x) = max(x, 0) + log(1 + u), u = 2^-|x log2(e)|, times 2^24 as in maps_ratio.h.
template <bool kRough>
struct SoftplusAttention : UnshiftedAttention {
  static constexpr double kUnit = kLog2E;
  static constexpr float kTimes = Softplus<float>::kTimes;
  using UnshiftedAttention::UnshiftedAttention;
  VF numerator(VF x, VF) const {
    const VF tail = log1p_poly<kRough>(exp2<kRough>(-abs<float>(x)));
    return fma(max(VF{}, x), splat(static_cast<float>(kLn2) * kTimes), tail * kTimes);
  }
  VF slope(VF x, VF) const {
    const VF u = exp2<kRough>(-abs<float>(x));
    return (x < VF{} ? u : splat(1.0f)) * kTimes * reciprocal<kRough>(1.0f + u);
  }
};

// 1 + x from 0 on, 1 / (1 - x) below.
template <bool kRough>
struct StableMaxAttention : UnshiftedAttention {
  static constexpr double kUnit = 1;
  using UnshiftedAttention::UnshiftedAttention;
  VF numerator(VF x, VF) const {
    const VF a = abs<float>(x) + 1.0f;
    return keep(x != -kInfinity<float>, x < VF{} ? reciprocal<kRough>(a) : a);
  }
  VF slope(VF x, VF) const {
    const VF inverse = reciprocal<kRough>(abs<float>(x) + 1.0f);
    return keep(x != -kInfinity<float>, x < VF{} ? inverse * inverse : splat(1.0f));
  }
};

// A map of maps_ratio.h whose vectors are as fast as they need to be.
template <template <class> class Map>
struct ScaledAttention : Map<float> {
  static constexpr double kUnit = 1;
  static constexpr float kTimes = 1;
  using Map<float>::Map;
  VF slope(VF x, VF shift) const { return keep(x != -kInfinity<float>, Map<float>::slope(x, shift)); }
  VF rescale(VF from, VF to) const {
    VF change;
    for (int i = 0; i < kLanes<float>; ++i) change[i] = Map<float>::rescale(from[i], to[i]);
    return change;
  }
  float log_scale(float shift) const { return static_cast<float>(this->degree()) * scalar_log(shift); }
};

// 1 / (1 + 2^(at - x)) as e / (1 + e), which is exactly 0 at -inf.
template <bool kRough>
struct SigmoidAttention {
  static constexpr double kUnit = kLog2E;
  Sigmoid<float> map;
  explicit SigmoidAttention(const double* options) : map(options) {}
  bool counts() const { return map.counts(); }
  float at(float n) const { return -map.at(n) * static_cast<float>(kLog2E); }
  VF weight(VF x, VF at) const {
    const VF e = exp2<kRough>(min(splat(126.0f), x - at));
    return e * reciprocal<kRough>(1.0f + e);
  }
  VF slope(VF x, VF at) const {
    const VF w = weight(x, at);
    return w * (1.0f - w);
  }
};

// Maps that divide by n: at(n) is 1 / n.
struct ReLUAttention {
  static constexpr double kUnit = 1;
  explicit ReLUAttention(const double*) {}
  bool counts() const { return true; }
  float at(float n) const { return 1 / n; }
  VF weight(VF x, VF at) const { return max(VF{}, x) * at; }
  VF slope(VF x, VF at) const { return keep(x > VF{}, at); }
};

struct SquaredReLUAttention : ReLUAttention {
  using ReLUAttention::ReLUAttention;
  VF weight(VF x, VF at) const {
    const VF positive = max(VF{}, x);
    return positive * positive * at;
  }
  VF slope(VF x, VF at) const { return max(VF{}, x) * 2.0f * at; }
};

}  // namespace manymax::MANYMAX_ISA
