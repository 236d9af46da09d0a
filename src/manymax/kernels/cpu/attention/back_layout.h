// Backwards: sizes, how the work is cut, and one thread's memory.
#pragma once

#include "layout.h"

namespace manymax::MANYMAX_ISA {

inline constexpr int64_t kBackColumns = 192;  // keys of a block: whole strips and whole panels

struct BackSizes {
  int64_t queries;         // rounded up to whole blocks
  int64_t dim, value_dim;  // rounded up to whole vectors
  int64_t blocks;          // of keys
  int64_t heads;           // of queries, over the batch
  int64_t segments = 1;    // tasks that share the blocks of a key head
  bool in_order = false;   // a segment's heads one after the other, since they add to the same gradient of an addition

  BackSizes(const AttentionCall& call, int threads)
      : queries(round_up(call.queries, kRows)),
        dim(round_up(call.dim, kLane)),
        value_dim(round_up(call.value_dim, kLane)),
        blocks((call.keys + kBackColumns - 1) / kBackColumns),
        heads(call.batch * call.query_heads) {
    bool one_column = false;  // an addition that is the same for all keys: segments would add to the same place
    for (int a = 0; a < kMaxAdditions; ++a) {
      if (!call.d_additions[a]) continue;
      const OnScores& x = call.additions[a];
      in_order = in_order || (x.batch == 0 && call.batch > 1) || (x.head == 0 && call.query_heads > 1);
      one_column = one_column || (x.key == 0 && call.keys > 1);
    }
    const int64_t tasks = call.batch * call.key_heads;
    const bool balanced = !in_order && (tasks % threads == 0 || tasks >= 4 * threads);
    if (!balanced && !one_column) segments = threads < blocks ? threads : blocks;
  }
};

// A block of keys, its gradients, and a tile against a block of queries.
template <class E>
struct BackRoom {
  float *scores, *d_weights, *slopes;          // kRows x kBackColumns
  float *d_key, *d_value;                      // of the block's tokens
  E *key_panels, *value_panels;                // what products with queries and gradients of outputs read
  E* keys;                                     // what products with gradients of scores read
  Pair *weights, *d_scores, *d_scores_across;  // the tile as pairs of two queries, and of two keys

  static int64_t size(const BackSizes& sizes) { return static_cast<int64_t>(BackRoom(nullptr, sizes).end_); }

  BackRoom(char* memory, const BackSizes& sizes) : end_(reinterpret_cast<uintptr_t>(memory)) {
    constexpr int64_t kTile = kRows * kBackColumns;
    take(scores, kTile), take(d_weights, kTile), take(slopes, kTile);
    take(d_key, kBackColumns * sizes.dim), take(d_value, kBackColumns * sizes.value_dim);
    take(key_panels, kBackColumns * sizes.dim), take(value_panels, kBackColumns * sizes.value_dim);
    take(keys, kBackColumns * sizes.dim);
    const int64_t pairs = ElementOf<E>::kEntries == 1 ? 0 : kTile / 2;
    take(weights, pairs), take(d_scores, pairs), take(d_scores_across, pairs);
  }

 private:
  uintptr_t end_;  // an address, since `size` counts from none
  template <class T>
  void take(T*& part, int64_t count) {
    part = reinterpret_cast<T*>(end_);
    end_ += static_cast<uintptr_t>(count) * sizeof(T);
  }
};

}  // namespace manymax::MANYMAX_ISA
