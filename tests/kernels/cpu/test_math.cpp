// Errors of math.h and log.h against float64, in ulp, for the instruction set that this file is compiled for.
#include <cmath>
#include <initializer_list>

#include "check.h"
#include "log.h"

namespace manymax::MANYMAX_ISA {
namespace {

// Distance of a float32 from the exact result, in units of the last place that a float32 has there.
double ulps(float got, double exact) {
  if (std::isnan(exact)) return std::isnan(got) ? 0 : INFINITY;
  const float nearest = static_cast<float>(exact);
  if (std::isinf(nearest) || std::isinf(got)) return got == nearest ? 0 : INFINITY;
  const double place = static_cast<double>(std::nextafter(std::fabs(nearest), INFINITY)) - std::fabs(nearest);
  return std::fabs(got - exact) / place;
}

// Every `step`-th float32 from +0 to +inf, and its negative where `negative` says so.
template <class F, class G>
bool within(const char* name, double limit, bool negative, uint32_t step, const F& ours, const G& exact) {
  double worst = 0;
  float at = 0;
  for (uint32_t sign : {0u, 0x80000000u}) {
    if (sign != 0 && !negative) break;
    for (uint64_t bits = 0; bits <= 0x7f800000u; bits += static_cast<uint64_t>(step) * kLanes<float>) {
      float in[kLanes<float>], out[kLanes<float>];
      for (int i = 0; i < kLanes<float>; ++i) {
        const uint64_t lane = bits + static_cast<uint64_t>(i) * step;
        in[i] = bit_cast<float>(static_cast<uint32_t>(lane > 0x7f800000u ? 0x7f800000u : lane) | sign);
      }
      store(out, ours(load(in)));
      for (int i = 0; i < kLanes<float>; ++i) {
        const double error = ulps(out[i], exact(static_cast<double>(in[i])));
        if (!(error <= worst)) worst = error, at = in[i];
      }
    }
  }
  std::printf("  %-15s %.3f ulp, worst at %a\n", name, worst, static_cast<double>(at));
  return worst <= limit;
}

#if defined(__FMA__) || defined(__ARM_FEATURE_FMA)
constexpr double kExp = 1;
#else
constexpr double kExp = 1.2;
#endif

void check_math(const Kernels& kernels) {
  const uint32_t step = math_step;
  bool good = within("exp", kExp, true, step, [](VF x) { return exp<float>(x); }, [](double x) { return std::exp(x); });
  const auto below = [](VF x) { return exp_nonpositive<float>(-x); };
  good &= within("exp_nonpositive", kExp, false, step, below, [](double x) { return std::exp(-x); });
  good &= within("log1p", 2, false, step, [](VF x) { return log1p<float>(x); }, [](double x) { return std::log1p(x); });
  good &= within("softplus", 2, true, step, [](VF x) { return softplus<float>(x); },
                 [](double x) { return (x > 0 ? x : 0) + std::log1p(std::exp(-std::fabs(x))); });
  good &= within("tanh", 3, true, step, [](VF x) { return tanh(x); }, [](double x) { return std::tanh(x); });
  const VF nan = exp<float>(splat(NAN));
  expect(good && nan[0] != nan[0], "%s: an error is larger than math.h or log.h say", kernels.isa);
}

#define MM_QUOTE(name) #name
#define MM_NAME(name) MM_QUOTE(name)
const Check math("math", check_math, MM_NAME(MANYMAX_ISA));

}  // namespace
}  // namespace manymax::MANYMAX_ISA
