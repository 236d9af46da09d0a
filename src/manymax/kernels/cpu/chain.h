// Rows one after the other, each written while the next one is read: memory is then read and written at all times, as in a
// copy. In turns, rows of 1024 took 1.4 times as long. A kernel that chains has, beside what rows.h says,
//
//   struct Finish {               // made from the row's total
//     Finish(const Kernel&, Part);
//     bool knows() const;         // whether it is all that writing the row takes
//     Vec<C> operator()(Vec<C>);  // what becomes of a numerator, or of a score where numerators are not stored
//   };
//   static constexpr bool kStores;  // whether numerators are
#pragma once

#include "total.h"

namespace manymax::MANYMAX_ISA {

// A vector of numerators of a row, and of what is written of the row before.
template <class C>
struct Link {
  Vec<C> numerator, written;
};

// Add up n entries of x, keeping their numerators in `now` if there is such a place, and write y = finish(before). Return
// whether the total's shift, which one look at the row's beginning gives, holds all of them.
template <class Map, class C, class Finish>
MM_INLINE bool read_and_write(const Map& map, const C* x, C* now, const C* before, C* y, bool streams, int64_t n,
                              Total<C>& total, const Finish& finish) {
  total = {shift_of(map, x, Map::kHeadroom == 0 || n < kGlance ? n : kGlance), 0, 0};
  const Vec<C> at = splat(map.usable(total.shift));
  Vec<C> tops[kUnroll] = {splat(-kInfinity<C>), splat(-kInfinity<C>), splat(-kInfinity<C>), splat(-kInfinity<C>)};
  chunks(0, n, [&](int64_t k, int64_t count) {
    count_chunk(map, x + k, count, total);
    Vec<C> sums[kUnroll] = {};
    const auto get = [&](int64_t i, auto span) {
      return Two<C>{load(x + k + i, span, -kInfinity<C>), load(before + k + i, span, C{0})};
    };
    const auto work = [&](Two<C> in, int u) {
      const Vec<C> numerator = map.numerator(in.x, at);
      tops[u] = max(in.x, tops[u]);
      sums[u] += numerator;
      return Link<C>{numerator, finish(in.g)};
    };
    put_vectors(y + k, streams, count, get, work, [&](int64_t i, auto span, Link<C> out) {
      prefetch_ahead(x + k + i);
      if (now) store(now + k + i, span, out.numerator);
      return out.written;
    });
    total.sum += sum_of<C>(sums);
  });
  return Map::kHeadroom == 0 || holds(map, total.shift, max_of<C>(tops));
}

// `rows` rows of n entries, those of x and of y each at one distance from each other.
template <class Kernel, class C>
MM_OUTLINE static void chain_rows(const Kernel& kernel, const C* x, int64_t x_pitch, Writer<C> y, int64_t y_pitch,
                                  int64_t rows, int64_t n) {
  using Finish = typename Kernel::Finish;
  C* now = Kernel::kStores ? y.room : nullptr;
  C* stored = Kernel::kStores ? y.room + kernel.room(n) / 2 : nullptr;
  Total<C> total{};
  Finish finish(kernel, total);
  bool waits = false;  // whether the row before is still to be written
  for (int64_t r = 0; r < rows; ++r, x += x_pitch, y.direct += y_pitch) {
    const Reader<C> row{x};
    bool held;
    if (waits) {
      const C* before = Kernel::kStores ? stored : x - x_pitch;
      held = read_and_write(kernel.map, x, now, before, y.direct - y_pitch, y.streams, n, total, finish);
    } else {
      held = kernel.read(row, now, n, total);
    }
    if (!held) total = kernel.partial(row, {}, 0, n);
    finish = Finish(kernel, total);
    waits = held && finish.knows();
    if (!waits) kernel.write(total, row, {}, y, 0, n, n);
    C* const free = stored;
    stored = now, now = free;
  }
  if (!waits) return;
  y.direct -= y_pitch;
  const C* before = Kernel::kStores ? stored : x - x_pitch;
  chunks(0, n, [&](int64_t k, int64_t count) { write_entries(y, k, count, before + k, finish); });
}

}  // namespace manymax::MANYMAX_ISA
