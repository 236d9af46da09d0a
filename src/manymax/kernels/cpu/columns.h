// Rows whose entries are far apart but which lie side by side, as along any dim but the last: sixteen of them, a cache
// line of float32, are transposed into a block, run as contiguous rows, and transposed back. Reading them one by one
// would fetch every line sixteen times.
#pragma once

#include "rows.h"

namespace manymax::MANYMAX_ISA {

inline constexpr int64_t kColumns = 16;
inline constexpr int64_t kLongestColumn = 1 << 16;  // 4 MB a block of float32; longer rows are read in place

// Blocks start 64 bytes further into a page each row, or powers of two as n would share one set of the cache.
static inline int64_t pitch_of(int64_t n) { return (n + 31) / 16 * 16 + 16; }

static inline bool has_columns(const RowsCall& call) {
  const int last = call.dims - 1;
  return call.x.step != 1 && last >= 0 && call.x.strides[last] == 1 && call.sizes[last] >= 4 && call.n > 1 &&
         call.n <= kLongestColumn;
}

template <class S>
static void transpose_in(const Operand& from, int64_t offset, int64_t apart, int64_t n, int64_t count, S* block) {
  const S* p = static_cast<const S*>(from.data) + offset;
  for (int64_t k = 0; k < n; ++k)
    for (int64_t c = 0; c < count; ++c) block[c * pitch_of(n) + k] = p[k * from.step + c * apart];
}

template <class S>
static void transpose_out(const S* block, int64_t n, int64_t count, const Operand& to, int64_t offset, int64_t apart) {
  S* p = static_cast<S*>(const_cast<void*>(to.data)) + offset;
  for (int64_t k = 0; k < n; ++k)
    for (int64_t c = 0; c < count; ++c) p[k * to.step + c * apart] = block[c * pitch_of(n) + k];
}

// Rows [first, first + count), neighbours along the last dim of the grid. `blocks` has room for three.
template <class Kernel, class S>
static void column_block(const RowsCall& call, const Kernel& kernel, Rows<S> rows, S* blocks, int64_t first,
                         int64_t count) {
  const int last = call.dims - 1;
  RowsCall block = call;
  block.dims = 1, block.sizes[0] = block.rows = count;
  const auto move = [&](const Operand& from, Operand& to, bool copies, size_t size, S* room) {
    const int64_t offset = offset_of(call, from, first);
    to.strides[0] = copies ? pitch_of(call.n) : from.strides[last];
    to.data = copies ? static_cast<const void*>(room)
                     : static_cast<const char*>(from.data) + offset * static_cast<int64_t>(size);
    to.step = copies ? 1 : from.step;
  };
  const int64_t area = kColumns * pitch_of(call.n);
  const bool writes = call.y.step != 0;  // 0: one number a row
  transpose_in(call.x, offset_of(call, call.x, first), call.x.strides[last], call.n, count, blocks);
  move(call.x, block.x, true, sizeof(S), blocks);
  if (call.grad.data) {
    const bool whole = call.grad.step != 0;
    if (whole)
      transpose_in(call.grad, offset_of(call, call.grad, first), call.grad.strides[last], call.n, count, blocks + area);
    move(call.grad, block.grad, whole, sizeof(S), blocks + area);
  }
  if (call.mask.data) move(call.mask, block.mask, false, 1, nullptr);
  move(call.y, block.y, writes, sizeof(S), blocks + 2 * area);
  rows.call = &block;
  for (int64_t r = 0; r < count; ++r)
    kernel.row(rows.x(r, Kernel::kReadsScores), rows.grad(r), rows.y(r), call.n);
  if (writes)
    transpose_out(blocks + 2 * area, call.n, count, call.y, offset_of(call, call.y, first), call.y.strides[last]);
}

template <class Kernel, class S>
static void column_rows(const RowsCall& call, const Team& team, const Kernel& kernel, const Rows<S>& rows, S* blocks) {
  const int64_t width = call.sizes[call.dims - 1], each = (width + kColumns - 1) / kColumns;
  int64_t first, last;
  team.share(call.rows / width * each, 1, first, last);
  for (int64_t u = first; u < last; ++u) {
    const int64_t begin = u % each * kColumns;
    const int64_t count = width - begin < kColumns ? width - begin : kColumns;
    column_block(call, kernel, rows, blocks, u / each * width + begin, count);
  }
}

}  // namespace manymax::MANYMAX_ISA
