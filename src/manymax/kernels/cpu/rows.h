// What a kernel sees of a call: rows as readers and a writer, or blocks of short rows. A kernel is a class template over the
// compute type:
//
//   template <class C> struct Kernel : KernelTraits {  // which are below
//     explicit Kernel(const RowsCall&);
//     void row(const Reader<C>& x, const Reader<C>& grad, const Writer<C>& y, int64_t n) const;
//     void block(const Block<C>&) const;  // if kBlocks
//     using Part = ...;                   // if kSplits: what a stretch of a row contributes
//     Part partial(x, grad, first, last) const;  Part merge(Part, Part) const;
//     void write(const Part& whole, x, grad, y, first, last, n) const;
//   };
#pragma once

#include <new>

#include "block.h"
#include "parallel.h"

namespace manymax::MANYMAX_ISA {

// What a kernel says otherwise where it differs.
struct KernelTraits {
  static constexpr bool kReadsScores = true;  // x holds scores, to be masked and divided by the temperature; else weights
  static constexpr bool kReduces = false;     // the result is one number a row
  static constexpr bool kBlocks = false;      // short rows come in blocks
  static constexpr bool kChains = false;      // rows can follow each other as chain.h says
  static constexpr bool kSplits = true;       // one row can be shared by threads
  static int64_t room(int64_t) { return 0; }  // how many entries of y.room a row needs
};

// The offset of row r in each operand.
static inline int64_t offset_of(const RowsCall& call, const Operand& operand, int64_t r) {
  int64_t offset = 0;
  for (int d = call.dims - 1; d > 0; --d) {
    offset += r % call.sizes[d] * operand.strides[d];
    r /= call.sizes[d];
  }
  return call.dims > 0 ? offset + r * operand.strides[0] : 0;
}

template <class S>
struct Rows {
  using C = Compute<S>;
  static constexpr bool kSame = sizeof(S) == sizeof(C);

  const RowsCall* call;
  C* buffers;  // 4 * kChunk: x, grad, y, and a block's numerators
  C* room;
  bool streams;

  MM_MEMBER Source source(const Operand& operand, int64_t r, bool scores) const {
    const S* p = static_cast<const S*>(operand.data) + offset_of(*call, operand, r);
    const auto* mask = static_cast<const uint8_t*>(scores ? call->mask.data : nullptr);
    if (mask) mask += offset_of(*call, call->mask, r);
    return {p, operand.step, mask, call->mask.step, scores ? call->temperature : 1};
  }
  static MM_MEMBER const C* direct(const Source& source) {
    if constexpr (kSame) {
      if (source.step == 1 && !source.mask && source.temperature == 1) return static_cast<const C*>(source.data);
    }
    return nullptr;
  }

  Reader<C> x(int64_t r, bool scores) const {
    const Source from = source(call->x, r, scores);
    return {direct(from), from, stage<S>, buffers};
  }
  Reader<C> grad(int64_t r) const {
    if (!call->grad.data) return {};
    const Source from = source(call->grad, r, false);
    return {direct(from), from, stage<S>, buffers + kChunk};
  }
  // A gradient of scores is divided by the temperature, as the scores were.
  Writer<C> y(int64_t r) const {
    S* p = static_cast<S*>(const_cast<void*>(call->y.data)) + offset_of(*call, call->y, r);
    Writer<C> result;
    result.temperature = call->grad.data ? call->temperature : 1;
    if constexpr (kSame) {
      if (call->y.step == 1 && result.temperature == 1) result.direct = p;
    }
    result.data = p;
    result.step = call->y.step;
    result.copy = unstage<S>;
    result.buffer = buffers + 2 * kChunk;
    result.room = room;
    result.streams = streams && result.direct;
    return result;
  }

  // Whether rows [r, r + count) lie at one distance from each other, that of the grid's last dim.
  bool evenly(int64_t r, int count) const {
    const int last = call->dims - 1;
    return last < 1 || r % call->sizes[last] + count <= call->sizes[last];
  }
  int64_t distance(const Operand& operand) const { return call->dims > 0 ? operand.strides[call->dims - 1] : 0; }

  // Rows [r, r + count): where they are, or copied to `buffer` with rows of zeros behind them.
  const C* entries(const Operand& operand, int64_t r, int count, bool scores, C* buffer, int64_t& pitch) const {
    const int64_t n = call->n;
    const Source first = source(operand, r, scores);
    const bool even = evenly(r, count);
    pitch = distance(operand);
    if (even && count == kLanes<C> && direct(first)) return direct(first);
    const bool mask_flat = !first.mask || (first.mask_step == 1 && distance(call->mask) == n);
    if (even && first.step == 1 && pitch == n && mask_flat) {
      stage<S>(first, 0, count * n, buffer);
    } else {
      for (int k = 0; k < count; ++k) stage<S>(k == 0 ? first : source(operand, r + k, scores), 0, n, buffer + k * n);
    }
    __builtin_memset(buffer + count * n, 0, static_cast<size_t>((kLanes<C> - count) * n) * sizeof(C));
    pitch = n;
    return buffer;
  }

  // `width` is the result's entries per row.
  Block<C> block(int64_t r, int count, bool scores, int64_t width) const {
    Block<C> b{};
    b.n = call->n, b.room = buffers + 3 * kChunk, b.room_pitch = (b.n + kLanes<C> - 1) / kLanes<C> * kLanes<C>;
    b.x = entries(call->x, r, count, scores, buffers, b.x_pitch);
    if (call->grad.data) b.grad = entries(call->grad, r, count, false, buffers + kChunk, b.grad_pitch);
    const Writer<C> out = y(r);
    const bool in_place = out.direct && count == kLanes<C> && evenly(r, count);
    b.y = in_place ? out.direct : buffers + 2 * kChunk;
    b.y_pitch = in_place ? distance(call->y) : width;
    // Only whole lines: a line of two rows would be written twice.
    const bool whole_lines = width % kLanes<C> == 0 && b.y_pitch % kLanes<C> == 0 &&
                             reinterpret_cast<uintptr_t>(b.y) % kVectorBytes == 0;
    b.streams = out.streams && in_place && whole_lines;
    return b;
  }

  // Whether the next whole block lies behind this one, all of it where it is used.
  bool steady(const Block<C>& b) const {
    return call->dims == 1 && b.x != buffers && b.grad != buffers + kChunk && b.y != buffers + 2 * kChunk;
  }

  // Carry the block's results to where they belong.
  void finish(const Block<C>& b, int64_t r, int count, int64_t width) const {
    const Writer<C> out = y(r);
    if (b.y == out.direct) return;
    if (evenly(r, count) && out.step == 1 && distance(call->y) == width)
      return unstage<S>(out.data, 1, out.temperature, 0, count * width, b.y);
    for (int k = 0; k < count; ++k) unstage<S>(y(r + k).data, out.step, out.temperature, 0, width, b.y + k * width);
  }
};

}  // namespace manymax::MANYMAX_ISA
