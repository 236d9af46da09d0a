// softmax attention with two tricks of FlashAttention-4 (Zadouri et al., 2026, arXiv 2603.05451), for the claim of that name: 2^x by
// the paper's polynomials, and rows that are rescaled only where their largest score has grown much.
//
// Options: the polynomial's degree (3 or 5), the share of each row's scores that it serves (the others go the way of softmax.cpp), and
// by how many powers of two a row's largest score may pass the shift before the row is rescaled. `stats` gets two numbers a row: how
// often the largest score grew, and how often that rescaled the row; a row's first tile is not counted.
#include "../kernels.h"
#include "run.h"

namespace manymax::MANYMAX_ISA {
namespace {

// 2^f on [0, 1), lowest coefficient first: relative errors 8.8e-5 and 8.5e-8, 1 at 0. The coefficients are the paper's.
template <int kDegree>
struct Polynomial;
template <>
struct Polynomial<3> {
  static constexpr float k[] = {1.0f, 0.695146143436431884765625f, 0.227564394474029541015625f, 0.077119089663028717041015625f};
};
template <>
struct Polynomial<5> {
  static constexpr float k[] = {1.0f,
                                0.693151414394378662109375f,
                                0.24016360938549041748046875f,
                                5.5802188813686370849609375e-2f,
                                9.01452265679836273193359375e-3f,
                                1.86810153536498546600341796875e-3f};
};

// 2^y: y = n + f with n the integer below, n added to the exponent of the polynomial in f. Exactly 0 from y = -127 down, where f is 0.
template <int kDegree>
MM_INLINE VF exp2_software(VF y) {
  constexpr auto& k = Polynomial<kDegree>::k;
  y = max(splat(-127.0f), y);
#if defined(__AVX512F__)
  const VF f = _mm512_reduce_ps(y, _MM_FROUND_TO_NEG_INF | _MM_FROUND_NO_EXC);
  // n in the low bits, which the shift leaves alone.
  const VF n = _mm512_add_round_ps(y, splat(ExpConstants<float>::kRound), _MM_FROUND_TO_NEG_INF | _MM_FROUND_NO_EXC);
  const Mask<float> exponent = bit_cast<Mask<float>>(n) << 23;
#else
  const VF nearest = (y + ExpConstants<float>::kRound) - ExpConstants<float>::kRound;
  const VF n = nearest - keep(nearest > y, splat(1.0f)), f = y - n;
  const Mask<float> exponent = __builtin_convertvector(n, Mask<float>) << 23;
#endif
  VF p = splat(k[kDegree]);
#pragma GCC unroll 8
  for (int i = kDegree - 1; i >= 0; --i) p = fma(p, f, splat(k[i]));
  return bit_cast<VF>(bit_cast<Mask<float>>(p) + exponent);
}

template <class E>
struct Flash4Weigher final : RatioWeigher<SoftmaxAttention<ElementOf<E>::kEntries == 2>, E> {
  using Base = RatioWeigher<SoftmaxAttention<ElementOf<E>::kEntries == 2>, E>;
  const int degree;
  const double share;
  const float slack;

  explicit Flash4Weigher(const AttentionCall& call)
      : Base(call), degree(static_cast<int>(call.options[0])), share(call.options[1]), slack(static_cast<float>(call.options[2])) {}

  void start(const Block& at, RowState& rows) const override {
    Base::start(at, rows);
    __builtin_memset(rows.rises, 0, sizeof rows.rises);
    __builtin_memset(rows.rescales, 0, sizeof rows.rescales);
  }

  void weigh(const Tile<E>& tile, RowState& rows) const override {
    raise_late(tile, rows);
    if (degree == 3) return weigh_by<3>(tile, rows);
    weigh_by<5>(tile, rows);
  }

  // The first vectors of a row are the polynomial's share.
  template <int kDegree>
  void weigh_by(const Tile<E>& tile, RowState& rows) const {
    const int64_t split = static_cast<int64_t>(share * static_cast<double>(tile.at.columns) / (2 * kLane) + 0.5) * 2 * kLane;
    over_rows(tile, [&](int64_t r, const auto& drop) {
      const VF at = splat(rows.shift[r]);
      VF a{}, b{};
      const auto add = [&](int64_t first, int64_t last, const auto& numerator) {
        for (int64_t c = first; c < last; c += 2 * kLane) {
          const VF v = numerator(tile.score(r, c)), w = numerator(tile.score(r, c + kLane));
          a += v, b += w;
          tile.put(r, c, drop(c, v)), tile.put(r, c + kLane, drop(c + kLane, w));
        }
      };
      add(0, split, [&](VF x) { return exp2_software<kDegree>(x - at); });
      add(split, tile.at.columns, [&](VF x) { return this->map.numerator(x, at); });
      store(rows.sums[r], fma(load(rows.sums[r]), splat(rows.change[r]), a + b));
    });
  }

  // Raise the shifts of rows without a shift so far and of those whose largest score has passed it by more than the slack.
  void raise_late(const Tile<E>& tile, RowState& rows) const {
    alignas(64) float before[kRows];
    __builtin_memcpy(before, rows.shift, sizeof before);
    rows.changed = false;
    for (int64_t r = 0; r < tile.at.rows; ++r) {
      VF a = splat(-kInfinity<float>), b = a;
      for (int64_t c = 0; c < tile.at.columns; c += 2 * kLane) {
        a = max(tile.score(r, c), a);
        b = max(tile.score(r, c + kLane), b);
      }
      a = max(a, b);
      if (!any(a > splat(rows.largest[r]))) continue;
      const bool first = rows.largest[r] == -kInfinity<float>;
      rows.largest[r] = reduce_max(a);
      if (!first) rows.rises[r] += 1;
      if (!first && rows.largest[r] - rows.shift[r] <= slack) continue;
      if (!first) rows.rescales[r] += 1;
      // A row without an entry so far holds zeros, which an infinite change would turn into NaN.
      if (first) before[r] = rows.largest[r];
      rows.shift[r] = rows.largest[r];
      rows.changed = true;
    }
    if (!rows.changed) return this->set_change(rows, tile.at.rows);
    for (int64_t r = 0; r < tile.at.rows; r += kLane)
      store(rows.change + r, this->map.rescale(load(before + r), load(rows.shift + r)));
  }

  RowResult finish(const RowState& rows, int64_t r) const override {
    RowResult result = Base::finish(rows, r);
    result.shift = rows.rises[r], result.kept = rows.rescales[r];
    return result;
  }
};

}  // namespace

void flash4(const AttentionCall& call) { run_forward<Flash4Weigher>(call); }

// The polynomial alone: option 0 is its degree.
void flash4_exp2(const RowsCall& call) {
  const float* x = static_cast<const float*>(call.x.data);
  float* y = static_cast<float*>(const_cast<void*>(call.y.data));
  for (int64_t i = 0, count = call.rows * call.n; i < count; i += kLane) {
    const VF v = load_some(x + i, count - i);
    store_some(y + i, count - i, call.options[0] == 3 ? exp2_software<3>(v) : exp2_software<5>(v));
  }
}

}  // namespace manymax::MANYMAX_ISA
