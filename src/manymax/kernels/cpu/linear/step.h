// A few tokens, one by one: each reads and writes a head's state once, as it lies in memory. What takes the time is that memory.
#pragma once

#include "../attention/arena.h"
#include "../attention/pack.h"
#include "../math.h"
#include "../parallel.h"

namespace manymax::MANYMAX_ISA {

// Bytes ahead of what is read: the state of the next head, as a rule. A prefetch past the end of a tensor touches nothing.
inline constexpr int kStateAhead = 16384;

// What one token of a head brings, in float32, and its state before and after; no `from` is a state of zeros.
struct Token {
  const float *query, *key, *decay, *value;
  float* out;
  float beta;
  bool delta;
  const float* from;
  float* to;
};

// V vectors of a state's columns from d on, `left` of them in the state.
template <int V>
MM_INLINE void step_columns(const Token& x, int64_t dim, int64_t width, int64_t d, int64_t left) {
  VF written[V], out[V];
#pragma GCC unroll 4
  for (int v = 0; v < V; ++v) written[v] = load(x.value + d + v * kLane), out[v] = VF{};
  const auto column = [&](const float* row, int v) { return V == 1 ? load_some(row, left) : load(row + v * kLane); };
  if (x.delta) {
    VF known[V] = {};
    for (int64_t r = 0; x.from && r < dim; ++r)
#pragma GCC unroll 4
      for (int v = 0; v < V; ++v)
        known[v] = fma(splat(x.key[r] * x.decay[r]), column(x.from + r * width + d, v), known[v]);
#pragma GCC unroll 4
    for (int v = 0; v < V; ++v) written[v] = (written[v] - known[v]) * splat(x.beta);
  }
  for (int64_t r = 0; r < dim; ++r) {
    const VF key = splat(x.key[r]), query = splat(x.query[r]), decay = splat(x.decay[r]);
#pragma GCC unroll 4
    for (int v = 0; v < V; ++v) {
      VF state = key * written[v];
      if (x.from) {
        __builtin_prefetch(reinterpret_cast<const char*>(x.from + r * width + d + v * kLane) + kStateAhead);
        state = fma(decay, column(x.from + r * width + d, v), state);
      }
      if (V == 1) {
        store_some(x.to + r * width + d, left, state);
      } else {
        store(x.to + r * width + d + v * kLane, state);
      }
      out[v] = fma(query, state, out[v]);
    }
  }
#pragma GCC unroll 4
  for (int v = 0; v < V; ++v) store(x.out + d + v * kLane, out[v]);
}

template <class S>
class LinearStep {
 public:
  explicit LinearStep(const LinearCall& call)
      : call_(call), key_width_(round_up(call.dim, kLane)), value_width_(round_up(call.value_dim, kLane)) {}

  void run() const {
    const int64_t heads = call_.batch * call_.query_heads;
    // A core reads and writes 32k entries in 2 us; waking another one takes twice that.
    const int threads = threads_for(heads * call_.tokens * call_.dim * call_.value_dim / 2, call_.threads);
    const int64_t size = 3 * key_width_ + 2 * value_width_;
    Arena arena;
    const int64_t rooms = arena.reserve<float>(size, threads);
    arena.allocate();
    parallel(threads, [&](const Team& team) {
      int64_t first, last;
      team.share(heads, 1, first, last);
      for (int64_t head = first; head < last; ++head) run_head(head, arena.at<float>(rooms, size, team.rank));
    });
  }

 private:
  void run_head(int64_t head, float* room) const {
    const int64_t b = head / call_.query_heads, h = head % call_.query_heads, entries = call_.dim * call_.value_dim;
    const int64_t kh = h / (call_.query_heads / call_.key_heads);
    float *query = room, *key = query + key_width_, *decay = key + key_width_, *value = decay + key_width_;
    float* const out = value + value_width_;
    const float* from = call_.initial_state ? call_.initial_state + head * entries : nullptr;
    float* const to = call_.final_state + head * entries;
    for (int64_t t = 0; t < call_.tokens; ++t, from = to) {
      pack_rows(stretch<S>(call_.query, b, h, t, 1, call_.dim), 1, key_width_, 1, query);
      pack_rows(stretch<S>(call_.key, b, kh, t, 1, call_.dim), 1, key_width_, 1, key);
      pack_rows(stretch<S>(call_.value, b, kh, t, 1, call_.value_dim), 1, value_width_, 1, value);
      read_decay(b, h, t, decay);
      const Tokens& x = call_.beta;
      const float beta = x.data ? *(static_cast<const float*>(x.data) + b * x.batch + h * x.head + t * x.token) : 1;
      run_token({query, key, decay, value, out, beta, x.data != nullptr, from, to});
      S* const to_out = static_cast<S*>(const_cast<void*>(call_.out.data)) + b * call_.out.batch + h * call_.out.head +
                        t * call_.out.token;
      for (int64_t d = 0; d < call_.value_dim; d += kLane) store_some(to_out + d, call_.value_dim - d, load(out + d));
    }
    if (call_.tokens == 0) carry(from, to, entries);
  }

  static void carry(const float* from, float* to, int64_t entries) {
    for (int64_t e = 0; e < entries; ++e) to[e] = from ? from[e] : 0;
  }

  void read_decay(int64_t b, int64_t h, int64_t t, float* decay) const {
    const Tokens& x = call_.log_decay;
    const float* logs = x.data ? static_cast<const float*>(x.data) + b * x.batch + h * x.head + t * x.token : nullptr;
    for (int64_t d = 0; d < key_width_; d += kLane) {
      const VF log = !logs ? VF{} : call_.channels ? load_some(logs + d, call_.dim - d) : splat(*logs);
      store(decay + d, exp<float>(log));
    }
  }

  void run_token(const Token& x) const {
    const int64_t width = call_.value_dim;
    int64_t d = 0;
    for (; d + 4 * kLane <= width; d += 4 * kLane) step_columns<4>(x, call_.dim, width, d, width - d);
    for (; d < width; d += kLane) step_columns<1>(x, call_.dim, width, d, width - d);
  }

  const LinearCall& call_;
  const int64_t key_width_, value_width_;
};

}  // namespace manymax::MANYMAX_ISA
