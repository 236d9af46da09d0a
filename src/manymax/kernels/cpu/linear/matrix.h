// Matrices in working memory, and the products over them: whole ones, and those of a lower triangle, entries (i, j) with j <= i, which
// leave out what lies above the diagonal, strip by strip.
#pragma once

#include "../attention/pack.h"

namespace manymax::MANYMAX_ISA {

inline constexpr int64_t kLongestColumn = 256;

// Rows of floats, `step` apart. Columns are whole vectors, and rows whole strips.
struct Matrix {
  float* data;
  int64_t step;

  float* row(int64_t i) const { return data + i * step; }
  Matrix from(int64_t i) const { return {row(i), step}; }
  Matrix at(int64_t i, int64_t j) const { return {row(i) + j, step}; }
  Matrix backwards(int64_t rows) const { return {row(rows - 1), -step}; }  // the last of `rows` rows first
};

// Nothing behind `count` entries is read.
static inline float dot(const float* a, const float* b, int64_t count) {
  const int64_t whole = count / kLane * kLane;
  VF sum = count > whole ? load(a + whole, count - whole, 0.0f) * load(b + whole, count - whole, 0.0f) : VF{};
  for (int64_t d = 0; d < whole; d += kLane) sum = fma(load(a + d), load(b + d), sum);
  return reduce_add(sum);
}

// c = A b, c += A b or c = scale c + A b for one column, c and b being the first of their matrices.
template <Into kInto>
MM_INLINE void put_column(Matrix c, int64_t i, float sum, const float* scale) {
  float& to = c.row(i)[0];
  to = kInto == Into::fresh ? sum : kInto == Into::sum ? to + sum : __builtin_fmaf(to, scale[i], sum);
}

template <Into kInto>
static void column_product(Matrix a, Matrix b, int64_t k, Matrix c, int64_t rows, const float* scale) {
  float column[kLongestColumn];
  for (int64_t s = 0; s < k; ++s) column[s] = b.row(s)[0];
  for (int64_t i = 0; i < rows; ++i) put_column<kInto>(c, i, dot(a.row(i), column, k), scale);
}

template <Into kInto>
static void column_product_transposed(Matrix a, Matrix b, int64_t k, Matrix c, int64_t rows, const float* scale) {
  for (int64_t i = 0; i < rows; i += kLane) {
    VF sums[4] = {};  // a multiply-add takes 4 cycles
    int64_t s = 0;
    for (; s + 4 <= k; s += 4)
#pragma GCC unroll 4
      for (int u = 0; u < 4; ++u) sums[u] = fma(load(a.row(s + u) + i), splat(b.row(s + u)[0]), sums[u]);
    for (; s < k; ++s) sums[0] = fma(load(a.row(s) + i), splat(b.row(s)[0]), sums[0]);
    const VF all = (sums[0] + sums[1]) + (sums[2] + sums[3]);
    for (int64_t r = 0; r < kLane && i + r < rows; ++r) put_column<kInto>(c, i + r, all[r], scale);
  }
}

// C = A B, C += A B or C = scale C + A B, over k entries; kTransposed: `a` holds A's columns. A single column behind whole
// vectors, a normaliser's ones for example, goes alone: with a vector of its own it would take a third of the time of 64 columns.
template <Into kInto, bool kTransposed = false>
static void product(Matrix a, Matrix b, int64_t k, Matrix c, int64_t rows, int64_t columns, const float* scale = nullptr) {
  const bool alone = columns % kLane == 1 && columns > kLane && k <= kLongestColumn;
  const int64_t vectors = alone ? columns / kLane : (columns + kLane - 1) / kLane, done = columns - 1;
  multiply<float, kInto, kTransposed>({a.data, a.step, b.data, b.step, k}, c.data, c.step, (rows + kStrip - 1) / kStrip, vectors,
                                      scale);
  if (!alone) return;
  if constexpr (kTransposed) {
    column_product_transposed<kInto>(a, b.at(0, done), k, c.at(0, done), rows, scale);
  } else {
    column_product<kInto>(a, b.at(0, done), k, c.at(0, done), rows, scale);
  }
}

// Columns of a row's strip that a lower triangle reaches.
MM_INLINE int64_t reach(int64_t i) { return round_up(i / kStrip * kStrip + kStrip, kLane); }

// The lower triangle of A B; what shares a strip and a vector with it is written too.
static inline void product_lower(Matrix a, Matrix b, int64_t k, Matrix c, int64_t rows) {
  for (int64_t i = 0; i < rows; i += kStrip) product<Into::fresh>(a.from(i), b, k, c.from(i), kStrip, reach(i));
}

// C += L B
static inline void add_lower(Matrix lower, Matrix b, Matrix c, int64_t rows, int64_t columns) {
  for (int64_t i = 0; i < rows; i += kStrip)
    product<Into::sum>(lower.from(i), b, i + kStrip, c.from(i), kStrip, columns);
}

// C += L^T B, from the last row on: a decay makes those small, and sums that end with what is large round less, 2 to 3 times here.
static inline void add_lower_transposed(Matrix lower, Matrix b, Matrix c, int64_t rows, int64_t columns) {
  for (int64_t j = 0; j < rows; j += kStrip)
    product<Into::sum, true>(lower.at(0, j).backwards(rows), b.backwards(rows), rows - j, c.from(j), kStrip, columns);
}

// to = from^T; both dims are whole vectors.
static inline void transpose(Matrix from, int64_t rows, int64_t columns, Matrix to) {
  for (int64_t i = 0; i < rows; i += kLane) {
    for (int64_t j = 0; j < columns; j += kLane) {
      VF part[kLane];
#pragma GCC unroll 16
      for (int r = 0; r < kLane; ++r) part[r] = load(from.row(i + r) + j);
      transpose(part);
#pragma GCC unroll 16
      for (int r = 0; r < kLane; ++r) store(to.row(j + r) + i, part[r]);
    }
  }
}

// Entry by entry: to = op(a, b).
template <class Op>
MM_INLINE void combine(Matrix a, Matrix b, Matrix to, int64_t rows, int64_t columns, const Op& op) {
  for (int64_t i = 0; i < rows; ++i)
    for (int64_t d = 0; d < columns; d += kLane) store(to.row(i) + d, op(load(a.row(i) + d), load(b.row(i) + d)));
}

static inline void times(Matrix a, Matrix b, Matrix to, int64_t rows, int64_t columns) {
  combine(a, b, to, rows, columns, [](VF x, VF y) { return x * y; });
}

static inline void add(Matrix a, Matrix to, int64_t rows, int64_t columns) {
  combine(a, to, to, rows, columns, [](VF x, VF y) { return x + y; });
}

static inline void clear(Matrix a, int64_t rows) {
  __builtin_memset(a.data, 0, static_cast<size_t>(rows * a.step) * sizeof(float));
}

static inline void copy(const float* from, float* to, int64_t count) {
  __builtin_memcpy(to, from, static_cast<size_t>(count) * sizeof(float));
}

// y += factor x
MM_INLINE void add_scaled(float factor, const float* x, float* y, int64_t count) {
  for (int64_t d = 0; d < count; d += kLane) store(y + d, fma(splat(factor), load(x + d), load(y + d)));
}

}  // namespace manymax::MANYMAX_ISA
