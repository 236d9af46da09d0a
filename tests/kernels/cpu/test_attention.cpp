// Attention, forwards, backwards and with few queries, against the formulas in double, in memory that ends where tensors end.
#include <cmath>
#include <functional>
#include <initializer_list>
#include <vector>

#include "check.h"
#include "small_types.h"

using namespace manymax;

namespace {

using Function = std::function<double(double)>;
using Doubles = std::vector<double>;

struct Sizes {
  int64_t batch, query_heads, key_heads, queries, keys, dim, value_dim;
  bool causal, masked, added;
  int threads;
};

// Lengths around vectors, panels and blocks of 96, 128, 192 and 256.
const Sizes kSizes[] = {
    {1, 1, 1, 1, 1, 1, 1, false, false, false, 1},     {2, 1, 1, 5, 7, 3, 2, false, true, false, 1},
    {1, 2, 1, 97, 261, 9, 5, true, false, false, 2},   {2, 4, 2, 13, 65, 20, 33, false, true, false, 2},
    {1, 2, 2, 40, 131, 16, 16, true, false, true, 1},  {1, 3, 1, 1, 300, 33, 17, false, false, false, 2},
    {1, 1, 1, 193, 193, 8, 8, false, false, false, 3},
};

// What a map makes of one row's scores, and of the gradients of its weights. -inf: not seen.
struct Map {
  const char* name;
  Function g;           // ratio: the numerator; pointwise: the weight times n; threshold: unused
  double extra = 0;     // of a ratio's sum
  int power = 0;        // of a threshold map
  bool ratio = true;
};

double stable(double x) { return x >= 0 ? x + 1 : 1 / (1 - x); }
double positive(double x) { return x > 0 ? x : 0; }

const Map kMaps[] = {
    {"softmax", [](double x) { return std::exp(x); }},
    {"softmax1", [](double x) { return std::exp(x); }, 1},
    {"softplus", [](double x) { return std::log1p(std::exp(x)); }},
    {"stablemax", stable},
    {"power_softmax", [](double x) { return x * x; }},
    {"spherical_softmax", [](double x) { return x * x + 2; }},
    {"taylor_softmax", [](double x) { return 1 + x + x * x / 2; }},
    {"relu", positive, 0, 0, false},
    {"squared_relu", [](double x) { return positive(x) * positive(x); }, 0, 0, false},
    {"sigmoid", nullptr, 0, 0, false},
    {"sparsemax", nullptr, 0, 1},
    {"entmax15", nullptr, 0, 2},
};

double slope(const Function& g, double x) { return (g(x + 1e-5) - g(x - 1e-5)) / 2e-5; }

// The cut of a threshold map by halving.
double cut_of(const Doubles& x, int power) {
  double low = -1e3, high = 1e3;
  for (int step = 0; step < 200; ++step) {
    const double middle = (low + high) / 2;
    double sum = 0;
    for (double v : x) sum += std::pow(positive(v / power - middle), power);
    (sum > 1 ? low : high) = middle;
  }
  return low;
}

// Weights of a row; d becomes the gradients of its scores.
Doubles row(const Map& map, const Doubles& x, Doubles& d) {
  Doubles w(x.size(), 0.0), s(x.size(), 0.0);  // s: slopes
  double n = 0, sum = map.extra, dot = 0, all = 0;
  for (double v : x) n += v != -INFINITY;
  Function g = map.g;
  if (std::strcmp(map.name, "sigmoid") == 0) g = [n](double v) { return n / (1 + n * std::exp(-v)); };
  const double cut = map.power ? cut_of(x, map.power) : 0;
  if (g && map.ratio)
    for (double v : x) sum += v == -INFINITY ? 0 : g(v);
  for (size_t j = 0; j < x.size(); ++j) {
    if (x[j] == -INFINITY) continue;
    const double root = positive(x[j] / (map.power ? map.power : 1) - cut);
    w[j] = map.power ? std::pow(root, map.power) : g(x[j]) / (map.ratio ? sum : n);
    s[j] = map.power ? (root == 0 ? 0 : map.power == 1 ? 1 : root) : slope(g, x[j]) / (map.ratio ? sum : n);
    dot += (map.power ? s[j] : w[j]) * d[j], all += s[j];
  }
  const double share = map.power ? (all == 0 ? 0 : dot / all) : map.ratio ? dot : 0;
  for (size_t j = 0; j < x.size(); ++j) d[j] = s[j] * (d[j] - share);
  return w;
}

// A tensor (batch, tokens, heads, dim), heads inside of tokens.
template <class T>
struct Tensor {
  Guarded<T> data;
  int64_t tokens, heads, dim;
  DType dtype;

  Tensor(int64_t batch, int64_t heads, int64_t tokens, int64_t dim, DType dtype, int seed)
      : data(batch * heads * tokens * dim), tokens(tokens), heads(heads), dim(dim), dtype(dtype) {
    // A 64th of a small number, which every storage type holds; NaN in what is to be written.
    for (size_t i = 0; i < data.size(); ++i) {
      if (seed == 0) std::memset(&data[i], 0xff, sizeof(T));
      if (seed != 0) put(data[i], std::round(100 * std::sin(seed * 1.7 + 0.9 * static_cast<double>(i))) / 64, dtype);
    }
  }
  size_t at(int64_t b, int64_t h, int64_t i, int64_t d) const { return ((b * tokens + i) * heads + h) * dim + d; }
  double operator()(int64_t b, int64_t h, int64_t i, int64_t d) const { return get(data[at(b, h, i, d)], dtype); }
  Tokens view() const { return {data.data(), tokens * heads * dim, dim, heads * dim}; }
};

// The largest difference, relative to the largest number, or to 1: values are of that size, however they cancel.
template <class T>
void compare(const char* isa, const char* map, const char* what, const Tensor<T>& got, const Doubles& expected, const Sizes& z) {
  double size = 1, worst = 0;
  for (size_t i = 0; i < expected.size(); ++i) {
    const double error = std::fabs(get(got.data[i], got.dtype) - expected[i]);
    size = std::fmax(size, std::fabs(expected[i]));
    if (!(error <= worst)) worst = error;
  }
  // Rounding the gradients of scores to bfloat16 alone costs 5 % where they cancel, as sparsemax makes them.
  const double limit = got.dtype == DType::f32 ? 2e-5 : got.dtype == DType::f16 ? 4e-3 : 8e-2;
  expect(worst <= limit * size, "%s %s attention, %ld x %ld, dtype %d: %s is off by %g of %g", isa, map, long{z.queries},
         long{z.keys}, static_cast<int>(got.dtype), what, worst, size);
}

template <class T>
void check(const char* isa, const AttentionEntry& entry, const Map& map, const Sizes& z, DType dtype) {
  Tensor<T> q(z.batch, z.query_heads, z.queries, z.dim, dtype, 1), k(z.batch, z.key_heads, z.keys, z.dim, dtype, 2);
  Tensor<T> v(z.batch, z.key_heads, z.keys, z.value_dim, dtype, 3), d_out(z.batch, z.query_heads, z.queries, z.value_dim, dtype, 4);
  Tensor<T> out(z.batch, z.query_heads, z.queries, z.value_dim, dtype, 0), d_q(z.batch, z.query_heads, z.queries, z.dim, dtype, 0);
  Tensor<T> d_k(z.batch, z.key_heads, z.keys, z.dim, dtype, 0), d_v(z.batch, z.key_heads, z.keys, z.value_dim, dtype, 0);
  const int64_t rows = z.batch * z.query_heads * z.queries;
  Guarded<float> stats(2 * rows), lse(rows), added(z.queries * z.keys), d_added(z.queries * z.keys);
  Guarded<uint8_t> mask(z.batch * z.queries * z.keys, 1);
  for (size_t i = 0; i < mask.size(); ++i) mask[i] = i % 5 != 2;
  for (size_t i = 0; i < added.size(); ++i) added[i] = i % 11 == 3 ? -INFINITY : static_cast<float>(std::cos(2.0 * i));

  AttentionCall call;
  call.dtype = dtype, call.threads = z.threads;
  call.batch = z.batch, call.query_heads = z.query_heads, call.key_heads = z.key_heads;
  call.queries = z.queries, call.keys = z.keys, call.dim = z.dim, call.value_dim = z.value_dim;
  call.query = q.view(), call.key = k.view(), call.value = v.view(), call.out = out.view();
  call.scale = 1 / std::sqrt(static_cast<double>(z.dim));
  call.low = -z.queries, call.high = z.causal ? z.keys - z.queries : z.keys;
  call.stats = stats.data(), call.lse = map.ratio && !map.power ? lse.data() : nullptr;
  if (z.masked) call.mask = {mask.data(), DType::f32, z.queries * z.keys, 0, z.keys, 1};
  if (z.added) call.additions[0] = {added.data(), DType::f32, 0, 0, z.keys, 1}, call.d_additions[0] = d_added.data();
  call.options[0] = std::strcmp(map.name, "sigmoid") == 0 ? NAN : 2;  // power, eps and order; a bias that counts keys

  Doubles e_out(out.data.size()), e_q(d_q.data.size()), e_k(d_k.data.size()), e_v(d_v.data.size());
  for (int64_t b = 0; b < z.batch; ++b) {
    for (int64_t h = 0; h < z.query_heads; ++h) {
      const int64_t kh = h / (z.query_heads / z.key_heads);
      for (int64_t i = 0; i < z.queries; ++i) {
        Doubles x(z.keys, -INFINITY), d(z.keys, 0.0);
        for (int64_t j = 0; j < z.keys; ++j) {
          if (j - i > call.high || (z.masked && !mask[(b * z.queries + i) * z.keys + j])) continue;
          double score = 0;
          for (int64_t c = 0; c < z.dim; ++c) score += q(b, h, i, c) * k(b, kh, j, c);
          x[j] = score * call.scale + (z.added ? static_cast<double>(added[i * z.keys + j]) : 0.0);
          for (int64_t c = 0; c < z.value_dim; ++c) d[j] += d_out(b, h, i, c) * v(b, kh, j, c);
        }
        const Doubles w = row(map, x, d);
        for (int64_t j = 0; j < z.keys; ++j) {
          for (int64_t c = 0; c < z.value_dim; ++c) {
            e_out[out.at(b, h, i, c)] += w[j] * v(b, kh, j, c);
            e_v[v.at(b, kh, j, c)] += w[j] * d_out(b, h, i, c);
          }
          for (int64_t c = 0; c < z.dim; ++c) {
            e_q[q.at(b, h, i, c)] += d[j] * call.scale * k(b, kh, j, c);
            e_k[k.at(b, kh, j, c)] += d[j] * call.scale * q(b, h, i, c);
          }
        }
      }
    }
  }

  if (entry.decode && z.queries == 1) {
    AttentionCall few = call;
    few.stats = few.lse = nullptr;
    entry.decode(few);
    compare(isa, map.name, "out of few queries", out, e_out, z);
    std::memset(out.data.data(), 0xff, out.data.size() * sizeof(T));
  }
  entry.forward(call);
  compare(isa, map.name, "out", out, e_out, z);
  call.d_out = d_out.view(), call.d_query = d_q.view(), call.d_key = d_k.view(), call.d_value = d_v.view();
  entry.backward(call);
  compare(isa, map.name, "gradient of query", d_q, e_q, z);
  compare(isa, map.name, "gradient of key", d_k, e_k, z);
  compare(isa, map.name, "gradient of value", d_v, e_v, z);
}

void check_attention(const Kernels& kernels) {
  for (int m = 0; m < kernels.attentions_count; ++m) {
    const AttentionEntry& entry = kernels.attentions[m];
    const Map* map = nullptr;
    for (const Map& one : kMaps)
      if (std::strcmp(one.name, entry.name) == 0) map = &one;
    expect(map != nullptr, "%s: test_attention.cpp does not know %s", kernels.isa, entry.name);
    if (map == nullptr) continue;
    for (const Sizes& sizes : kSizes) {
      check<float>(kernels.isa, entry, *map, sizes, DType::f32);
      check<Small>(kernels.isa, entry, *map, sizes, DType::bf16);
      check<Small>(kernels.isa, entry, *map, sizes, DType::f16);
    }
  }
}

const Check attention("attention", check_attention);

}  // namespace
