// The linear cross-entropy and its gradients against the formula in double, in memory that ends where tensors end.
#include <algorithm>
#include <cmath>
#include <vector>

#include "check.h"
#include "small_types.h"

using namespace manymax;

namespace {

struct Sizes {
  int64_t tokens, classes, dim, chunk;
  int threads;
  bool bias, weight, soft;
  double smoothing, softcap, penalty;
};

// Sizes around vectors, strips of 6 classes and of the dim, blocks of 96 and 192 classes, sums of 128, 96 columns, and chunks of 64 and 256 tokens.
const Sizes kSizes[] = {
    {1, 1, 1, 0, 1, false, false, false, 0, 0, 0},         {7, 95, 3, 0, 2, true, false, false, 0.1, 0, 0},
    {17, 97, 17, 16, 3, true, true, false, 0.2, 2, 0.1},   {100, 192, 64, 0, 2, false, false, false, 0, 0, 0.05},
    {300, 103, 130, 0, 2, true, false, false, 0, 3, 0},    {33, 290, 257, 0, 1, false, true, true, 0.1, 0, 0},
    {15, 600, 16, 5, 2, true, false, true, 0, 2, 0.1},     {40, 109, 770, 24, 2, false, false, false, 0, 0, 0},
    {130, 192, 96, 0, 2, true, false, false, 0, 0, 0},     {70, 385, 40, 0, 2, false, false, false, 0, 0, 0.1},
};

template <class T>
void fill(Guarded<T>& x, DType dtype, int seed, double scale) {
  for (size_t i = 0; i < x.size(); ++i)
    put(x[i], scale * std::round(64 * std::sin(seed * 1.7 + 0.9 * static_cast<double>(i))) / 64, dtype);
}

struct Exact {
  std::vector<double> losses, lse, d_input, d_rows, d_bias;
};

template <class T>
Exact exact(const Sizes& z, DType dtype, Guarded<T>& input, Guarded<T>& rows, const LossCall& call) {
  Exact x;
  x.d_input.assign(z.tokens * z.dim, 0), x.d_rows.assign(z.classes * z.dim, 0), x.d_bias.assign(z.classes, 0);
  for (int64_t i = 0; i < z.tokens; ++i) {
    std::vector<double> s(z.classes), p(z.classes);
    double total = 0, loss = 0, mass = 0;
    for (int64_t c = 0; c < z.classes; ++c) {
      s[c] = z.bias ? call.bias[c] : 0;
      for (int64_t d = 0; d < z.dim; ++d) s[c] += get(input[i * z.dim + d], dtype) * get(rows[c * z.dim + d], dtype);
      if (z.softcap > 0) s[c] = z.softcap * std::tanh(s[c] / z.softcap);
      total += std::exp(s[c]);
      const double aim = z.soft ? call.probabilities[i * z.classes + c] : call.target[i] == c;
      p[c] = ((1 - z.smoothing) * aim + z.smoothing / static_cast<double>(z.classes)) * (z.weight ? call.weight[c] : 1);
      mass += p[c];
    }
    const double lse = std::log(total);
    for (int64_t c = 0; c < z.classes; ++c) loss += p[c] * (lse - s[c]);
    x.losses.push_back(loss + z.penalty * lse * lse), x.lse.push_back(lse);
    for (int64_t c = 0; c < z.classes; ++c) {
      const double slope = call.d_losses[i] * (mass + 2 * z.penalty * lse) + call.d_lse[i];
      double d = std::exp(s[c] - lse) * slope - call.d_losses[i] * p[c];
      if (z.softcap > 0) d *= 1 - s[c] * s[c] / z.softcap / z.softcap;
      x.d_bias[c] += d;
      for (int64_t k = 0; k < z.dim; ++k) {
        x.d_input[i * z.dim + k] += d * get(rows[c * z.dim + k], dtype);
        x.d_rows[c * z.dim + k] += d * get(input[i * z.dim + k], dtype);
      }
    }
  }
  return x;
}

template <class T>
void compare(const char* what, const Sizes& z, DType dtype, Guarded<T>& found, DType stored, const std::vector<double>& expected) {
  double wrong = 0, size = 0;
  for (size_t i = 0; i < expected.size(); ++i) {
    const double error = get(found[i], stored) - expected[i];
    wrong += error * error, size += expected[i] * expected[i];
  }
  // bfloat16 rounds the scores' gradients too, to 2^-9.
  const double most = (dtype == DType::bf16 ? 8e-3 : dtype == DType::f16 && stored == DType::f16 ? 1e-3 : 3e-6);
  expect(std::sqrt(wrong) <= most * std::sqrt(size) + 1e-6, "%s of %ld tokens, %ld classes, dim %ld, dtype %d: error %.2e of %.2e", what,
         static_cast<long>(z.tokens), static_cast<long>(z.classes), static_cast<long>(z.dim), static_cast<int>(dtype), std::sqrt(wrong),
         std::sqrt(size));
}

template <class T>
void check(const Kernels& kernels, const Sizes& z, DType dtype) {
  Guarded<T> input(z.tokens * z.dim), rows(z.classes * z.dim), d_input(z.tokens * z.dim), narrow_rows(z.classes * z.dim);
  Guarded<float> bias(z.classes), weight(z.classes), probabilities(z.soft ? z.tokens * z.classes : 1), losses(z.tokens), lse(z.tokens);
  Guarded<float> d_losses(z.tokens), d_lse(z.tokens), d_rows(z.classes * z.dim), d_bias(z.classes);
  Guarded<int64_t> target(z.tokens);
  fill(input, dtype, 1, 1), fill(rows, dtype, 2, 1 / std::sqrt(static_cast<double>(z.dim)));
  fill(bias, DType::f32, 3, 1), fill(d_losses, DType::f32, 4, 1), fill(d_lse, DType::f32, 5, 1);
  std::fill(d_rows.begin(), d_rows.end(), NAN), std::fill(d_bias.begin(), d_bias.end(), NAN);  // new memory holds anything
  for (int64_t c = 0; c < z.classes; ++c) weight[c] = 0.5f + static_cast<float>(c % 7) / 7;
  for (size_t i = 0; i < probabilities.size(); ++i) probabilities[i] = static_cast<float>(i % 11) / 11 / static_cast<float>(z.classes);
  for (int64_t i = 0; i < z.tokens; ++i) target[i] = i == 2 ? -1 : i * 31 % z.classes;
  LossCall call;
  call.dtype = dtype, call.tokens = z.tokens, call.classes = z.classes, call.dim = z.dim;
  call.input = input.data(), call.rows = rows.data(), call.input_step = call.rows_step = z.dim;
  call.bias = z.bias ? bias.data() : nullptr, call.weight = z.weight ? weight.data() : nullptr;
  call.target = z.soft ? nullptr : target.data(), call.probabilities = z.soft ? probabilities.data() : nullptr;
  call.smoothing = z.smoothing, call.softcap = z.softcap, call.penalty = z.penalty;
  call.losses = losses.data(), call.lse = lse.data(), call.d_losses = d_losses.data(), call.d_lse = d_lse.data();
  call.d_input = d_input.data(), call.d_rows = d_rows.data(), call.d_bias = d_bias.data();
  call.narrow_rows = narrow_rows.data(), call.chunk = z.chunk, call.threads = z.threads;
  kernels.loss(call);
  const Exact x = exact(z, dtype, input, rows, call);
  compare("losses", z, dtype, losses, DType::f32, x.losses), compare("lse", z, dtype, lse, DType::f32, x.lse);
  compare("d_input", z, dtype, d_input, dtype, x.d_input), compare("d_rows", z, dtype, d_rows, DType::f32, x.d_rows);
  compare("narrow_rows", z, dtype, narrow_rows, dtype, x.d_rows), compare("d_bias", z, dtype, d_bias, DType::f32, x.d_bias);
}

void all(const Kernels& kernels) {
  for (const Sizes& z : kSizes) {
    check<float>(kernels, z, DType::f32);
    check<Small>(kernels, z, DType::bf16);
    check<Small>(kernels, z, DType::f16);
  }
}

const Check kCheck("linear cross-entropy", all);

}  // namespace
