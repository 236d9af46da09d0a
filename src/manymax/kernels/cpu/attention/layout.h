// Sizes of a call in elements, and where keys and values of a head lie once they are packed.
#pragma once

#include "../parallel.h"
#include "arena.h"
#include "tile.h"

namespace manymax::MANYMAX_ISA {

template <class E>
struct Layout {
  static constexpr int64_t kEntries = ElementOf<E>::kEntries;
  int64_t keys;         // rounded up to whole panels
  int64_t depth;        // elements of the summed dim of q . k
  int64_t step;         // elements from a packed query to the next, whole vectors of entries
  int64_t width;        // value's dim, rounded up to whole vectors
  int64_t panels_size;  // elements of a head's keys
  int64_t tokens_size;  // elements of a head's values

  explicit Layout(const AttentionCall& call)
      : keys(round_up(call.keys, kPanel)),
        depth(round_up(call.dim, kEntries) / kEntries),
        step(round_up(call.dim, kLane * kEntries) / kEntries),
        width(round_up(call.value_dim, kLane)),
        panels_size(keys * depth),
        tokens_size(keys / kEntries * width) {}
};

// Threads worth waking: below a million multiplications each, 9 us of work, waking costs as much.
static inline int threads_for(const AttentionCall& call) {
  const double pairs = static_cast<double>(call.batch * call.query_heads) * static_cast<double>(call.queries) *
                       static_cast<double>(call.keys);
  const double useful = 1 + pairs * static_cast<double>(call.dim + call.value_dim) / 1e6;
  return useful < call.threads ? static_cast<int>(useful) : call.threads;
}

// Heads that are packed and worked off together. 16 MB come from memory that the allocator keeps between calls; every page more of
// one call's own costs 0.8 us.
static inline int64_t heads_at_once(int64_t heads, int64_t bytes_of_one, int threads) {
  const int64_t fit = (int64_t{16} << 20) / bytes_of_one / threads * threads;
  return between(fit, threads, heads > threads ? heads : threads);
}

// Pack a panel of a head's keys and values, from key j on.
template <class S, class E>
static void pack_panel(const AttentionCall& call, const Layout<E>& layout, int64_t head, int64_t j, E* keys, E* values) {
  const int64_t b = head / call.key_heads, h = head % call.key_heads;
  const int64_t left = call.keys - j, count = left < kPanel ? left : kPanel;
  pack_panels(stretch<S>(call.key, b, h, j, count, call.dim), kPanel, keys + j * layout.depth);
  pack_tokens(stretch<S>(call.value, b, h, j, count, call.value_dim), kPanel, layout.width,
              values + j / Layout<E>::kEntries * layout.width);
}

}  // namespace manymax::MANYMAX_ISA
