// The delta rule writes u_i = beta_i e_i in place of v_i, where e_i is what the state before token i does not know of v_i. In a
// chunk that is a triangular system (the UT form of Yang et al. 2024, arXiv:2406.06484), solved strip by strip: a product with the strips
// that are known, then the few terms within the strip.
#pragma once

#include "decays.h"

namespace manymax::MANYMAX_ISA {

// e_i = e_i - sum over j < i of weights_ij beta_j e_j; minus_values_j = -beta_j e_j.
static inline void solve_lower(Matrix weights, const float* beta, int64_t rows, int64_t columns, Matrix e, Matrix minus_values) {
  for (int64_t start = 0; start < rows; start += kStrip) {
    product<Into::sum>(weights.from(start), minus_values, start, e.from(start), kStrip, columns);
    for (int64_t i = start; i < start + kStrip; ++i) {
      for (int64_t j = start; j < i; ++j) add_scaled(weights.row(i)[j], minus_values.row(j), e.row(i), columns);
      for (int64_t d = 0; d < columns; d += kLane) store(minus_values.row(i) + d, load(e.row(i) + d) * splat(-beta[i]));
    }
  }
}

// Its transpose, for gradients: x_j = x_j - sum over i > j of weights_ij beta_i x_i; minus_i = -beta_i x_i.
static inline void solve_upper(Matrix weights, const float* beta, int64_t rows, int64_t columns, Matrix x, Matrix minus) {
  for (int64_t start = rows - kStrip; start >= 0; start -= kStrip) {
    const int64_t behind = start + kStrip;
    product<Into::sum, true>(weights.at(behind, start), minus.from(behind), rows - behind, x.from(start), kStrip, columns);
    for (int64_t j = behind - 1; j >= start; --j) {
      for (int64_t i = j + 1; i < behind; ++i) add_scaled(weights.row(i)[j], minus.row(i), x.row(j), columns);
      for (int64_t d = 0; d < columns; d += kLane) store(minus.row(j) + d, load(x.row(j) + d) * splat(-beta[j]));
    }
  }
}

}  // namespace manymax::MANYMAX_ISA
