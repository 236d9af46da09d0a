// softmax of long rows in two visits to memory and in three, from the same micro-code: what the claim two-pass-softmax measures.
//
// Two passes (Dukhan and Ablavatski, 2020, The Two-Pass Softmax Algorithm, arXiv 2001.04438): an exponential is a pair (m, n) that
// stands for m 2^n and cannot overflow, so that a sum needs no maximum beforehand. Three passes find the maximum, sum exponentials,
// and then compute them again (recompute) or scale those that the second pass has stored (reload).
//
// Rows are float32 and finite; the library's own softmax (ratio.h) takes the rest.
#include "kernels.h"
#include "math.h"
#include "parallel.h"

namespace manymax::MANYMAX_ISA {
namespace {

constexpr int kLane = kLanes<float>;
constexpr int kAtOnce = kVectorBytes == 64 ? 8 : 4;  // vectors of a step: pairs of all of them stay in registers
constexpr int kMaxTeam = 256;

// m 2^n, lane by lane.
struct Pairs {
  VF m, n;
};

// e^x for finite x: n the nearest integer to x log2(e), m = e^t of the rest t, |t| <= ln(2) / 2, by the minimax polynomial of
// degree 5 with relative error 9.5e-8.
MM_INLINE Pairs exp_pairs(VF x) {
  VF rounded;
  const VF t = exp_reduce<float>(x, rounded);
  VF p = fma(splat(8.290307149e-03f), t, splat(4.189792986e-02f));
  p = fma(p, t, splat(1.666763628e-01f));
  p = fma(p, t, splat(4.999914953e-01f));
  p = fma(p, t, splat(9.999997072e-01f));
  return {fma(p, t, splat(1.0f)), rounded - ExpConstants<float>::kRound};
}

// m 2^n for n <= 0; 0 below n = -126, the last normal power.
MM_INLINE VF times_power(VF m, VF n) {
#if defined(__AVX512F__)
  return _mm512_maskz_scalef_ps(_mm512_cmp_ps_mask(n, splat(-126.0f), _CMP_GE_OQ), m, n);
#else
  const Mask<float> exponent = __builtin_convertvector(max(splat(-127.0f), n), Mask<float>) + 127;
  return m * bit_cast<VF>(exponent << 23);
#endif
}

// step(i, left) for the entries [first, last): `left` is kLane, or less for the last vector.
template <class Steps, class Step>
MM_INLINE void visit(int64_t first, int64_t last, const Steps& steps, const Step& step) {
  int64_t i = first;
  for (; i + kAtOnce * kLane <= last; i += kAtOnce * kLane) steps(i);
  for (; i < last; i += kLane) step(i, last - i < kLane ? last - i : kLane);
}

MM_INLINE VF load_part(const float* p, int64_t left) { return left == kLane ? load(p) : load(p, left, *p); }
MM_INLINE void store_part(float* p, int64_t left, VF x) { left == kLane ? store(p, x) : store(p, left, x); }

// A row's sum, or its maximum with the sum of exponentials relative to it: what threads merge.
struct Total {
  float m, n;
};

// The first of two passes: the sum of e^x as one pair.
Total sum_pairs(const float* x, int64_t first, int64_t last) {
  Pairs sum{VF{}, splat(-kInfinity<float>)};
  visit(
      first, last,
      [&](int64_t i) {
        Pairs e[kAtOnce];
        VF top = sum.n, terms[2] = {};
#pragma GCC unroll 8
        for (int u = 0; u < kAtOnce; ++u) e[u] = exp_pairs(load(x + i + u * kLane)), top = max(e[u].n, top);
#pragma GCC unroll 8
        for (int u = 0; u < kAtOnce; ++u) terms[u % 2] += times_power(e[u].m, e[u].n - top);
        sum = {times_power(sum.m, sum.n - top) + (terms[0] + terms[1]), top};
      },
      [&](int64_t i, int64_t left) {
        const Pairs e = exp_pairs(load_part(x + i, left));
        const VF top = max(e.n, sum.n), term = keep(first_lanes<float>(left), times_power(e.m, e.n - top));
        sum = {times_power(sum.m, sum.n - top) + term, top};
      });
  const float top = reduce_max(sum.n);
  return {first < last ? reduce_add(times_power(sum.m, sum.n - top)) : 0.0f, top};
}

float largest_of(const float* x, int64_t first, int64_t last) {
  VF m[4] = {splat(-kInfinity<float>), splat(-kInfinity<float>), splat(-kInfinity<float>), splat(-kInfinity<float>)};
  visit(
      first, last,
      [&](int64_t i) {
#pragma GCC unroll 8
        for (int u = 0; u < kAtOnce; ++u) m[u % 4] = max(load(x + i + u * kLane), m[u % 4]);
      },
      [&](int64_t i, int64_t left) { m[0] = max(load_part(x + i, left), m[0]); });
  return reduce_max(max(max(m[0], m[1]), max(m[2], m[3])));
}

MM_INLINE VF exp_below(VF x, VF largest) {
  const Pairs e = exp_pairs(x - largest);
  return times_power(e.m, e.n);
}

// The second of three passes: the sum of e^(x - largest), each stored in y if there is one.
template <bool kStores>
float sum_below(const float* x, float* y, int64_t first, int64_t last, float largest) {
  VF sum[4] = {};
  const VF at = splat(largest);
  visit(
      first, last,
      [&](int64_t i) {
#pragma GCC unroll 8
        for (int u = 0; u < kAtOnce; ++u) {
          const VF e = exp_below(load(x + i + u * kLane), at);
          if constexpr (kStores) store(y + i + u * kLane, e);
          sum[u % 4] += e;
        }
      },
      [&](int64_t i, int64_t left) {
        const VF e = exp_below(load_part(x + i, left), at);
        if constexpr (kStores) store_part(y + i, left, e);
        sum[0] += keep(first_lanes<float>(left), e);
      });
  return reduce_add((sum[0] + sum[1]) + (sum[2] + sum[3]));
}

// The last pass of all three: y = body(x).
template <class Body>
void write(const float* x, float* y, int64_t first, int64_t last, const Body& body) {
  visit(
      first, last,
      [&](int64_t i) {
#pragma GCC unroll 8
        for (int u = 0; u < kAtOnce; ++u) store(y + i + u * kLane, body(load(x + i + u * kLane)));
      },
      [&](int64_t i, int64_t left) { store_part(y + i, left, body(load_part(x + i, left))); });
}

// row(team, parts, x, y, first, last) for each row, a stretch of it for each thread.
template <class Row>
void over_rows(const RowsCall& call, const Row& row) {
  int threads = threads_for(call.n, call.threads);
  if (threads > kMaxTeam) threads = kMaxTeam;
  Total parts[kMaxTeam];
  parallel(threads, [&](const Team& team) {
    int64_t first, last;
    team.share(call.n, kLane, first, last);
    for (int64_t r = 0; r < call.rows; ++r) {
      row(team, parts, static_cast<const float*>(call.x.data) + r * call.x.strides[0],
          static_cast<float*>(const_cast<void*>(call.y.data)) + r * call.y.strides[0], first, last);
      team.barrier();  // parts are free for the next row
    }
  });
}

// The sum of all threads' pairs.
Total merge(const Team& team, const Total* parts) {
  float top = parts[0].n, m = 0;
  for (int t = 1; t < team.size; ++t) top = parts[t].n > top ? parts[t].n : top;
  for (int t = 0; t < team.size; ++t) m += times_power(splat(parts[t].m), splat(parts[t].n - top))[0];
  return {m, top};
}

template <bool kReloads>
void three_pass(const RowsCall& call) {
  over_rows(call, [](const Team& team, Total* parts, const float* x, float* y, int64_t first, int64_t last) {
    parts[team.rank].n = largest_of(x, first, last);
    team.barrier();
    float largest = parts[0].n, sum = 0;
    for (int t = 1; t < team.size; ++t) largest = parts[t].n > largest ? parts[t].n : largest;
    parts[team.rank].m = sum_below<kReloads>(x, y, first, last, largest);
    team.barrier();
    for (int t = 0; t < team.size; ++t) sum += parts[t].m;
    const VF factor = splat(1 / sum), at = splat(largest);
    if constexpr (kReloads) return write(y, y, first, last, [&](VF e) { return e * factor; });
    write(x, y, first, last, [&](VF v) { return exp_below(v, at) * factor; });
  });
}

}  // namespace

void two_pass(const RowsCall& call) {
  over_rows(call, [](const Team& team, Total* parts, const float* x, float* y, int64_t first, int64_t last) {
    parts[team.rank] = sum_pairs(x, first, last);
    team.barrier();
    const Total sum = merge(team, parts);
    const VF factor = splat(1 / sum.m), top = splat(sum.n);
    write(x, y, first, last, [&](VF v) {
      const Pairs e = exp_pairs(v);
      return times_power(e.m * factor, e.n - top);
    });
  });
}

void three_pass_recompute(const RowsCall& call) { three_pass<false>(call); }
void three_pass_reload(const RowsCall& call) { three_pass<true>(call); }

}  // namespace manymax::MANYMAX_ISA
