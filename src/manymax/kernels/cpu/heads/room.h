// Sizes of a call, and where in working memory a chunk's numbers lie.
#pragma once

#include "../attention/arena.h"
#include "../attention/pack.h"

namespace manymax::MANYMAX_ISA {

// Classes of a block: whole strips, and 300 KB of rows of 768, beside which the next ones find room in the second-level cache.
template <class E>
inline constexpr int64_t kClasses = 96 * ElementOf<E>::kEntries;
// Tokens of a chunk at most. Pairs are multiplied twice as fast, so more of them hide the time that memory takes for all rows and
// their gradients; 128 take 3 % longer than 256.
inline constexpr int64_t kTokens = 256;
template <class E>
inline constexpr int64_t kMostTokens = 64 * ElementOf<E>::kEntries * ElementOf<E>::kEntries;
inline constexpr int64_t kColumns = 96;  // of the rows that are packed as pairs of two classes at a time: 36 KB, beside 24 KB of gradients
inline constexpr int64_t kDepth = 128;  // elements of a sum at a time: shorter sums round less, and 32 KB of the input stay in cache
// Scores of a chunk, or a sixteenth of the rows' own number: 64 tokens of 50,257 classes in 13 MB, 256 as pairs in 51, since each
// chunk reads all rows and adds to all their gradients.
template <class E>
inline constexpr int64_t kScores = 3'300'000 * ElementOf<E>::kEntries * ElementOf<E>::kEntries;

template <class E>
struct LossSizes {
  static constexpr int64_t kEntries = ElementOf<E>::kEntries;

  int64_t tokens;   // of a chunk, whole vectors
  int64_t blocks;   // of classes
  int64_t depth;    // elements of a row
  int64_t panels;   // of the dim
  int64_t width;    // of the dim, whole vectors
  int64_t strips;   // of the dim
  int64_t sums;     // floats of a thread's d_input^T
  int64_t rows_step;  // elements of a packed row
  int64_t groups;     // of a chunk's tokens, of about as many vectors each, since products of one vector hide less: 80 as 48 and 32
  int64_t group;      // tokens of one

  explicit LossSizes(const LossCall& call)
      : tokens(chunk(call)),
        blocks((call.classes + kClasses<E> - 1) / kClasses<E>),
        depth((call.dim + kEntries - 1) / kEntries),
        panels((call.dim + kPanel - 1) / kPanel),
        width(round_up(call.dim, kLane)),
        strips((call.dim + kStrip - 1) / kStrip),
        sums(strips * kStrip * tokens),
        rows_step(round_up(call.dim, kLane * kEntries) / kEntries),
        groups((tokens + kPanel - 1) / kPanel),
        group(round_up((tokens + groups - 1) / groups, kLane)) {}

  // Vectors of a group of tokens, and of a panel of the dim.
  int64_t vectors_of(int64_t g) const {
    const int64_t left = tokens - g * group;
    return (left < group ? left : group) / kLane;
  }
  int64_t vectors(int64_t panel) const {
    const int64_t left = (width - panel * kPanel) / kLane;
    return left < kPanelVectors ? left : kPanelVectors;
  }
  static int64_t panel_dim(int64_t dim, int64_t panel) {
    const int64_t left = dim - panel * kPanel;
    return left < kPanel ? left : kPanel;
  }

 private:
  static int64_t chunk(const LossCall& call) {
    const int64_t sixteenth = call.classes * call.dim / 16, scores = kScores<E> > sixteenth ? kScores<E> : sixteenth;
    const int64_t fitting = scores / call.classes / kLane * kLane;
    const int64_t most = fitting < kLane ? kLane : fitting < kMostTokens<E> ? fitting : kMostTokens<E>;
    const int64_t wanted = call.chunk > 0 && call.chunk < call.tokens ? call.chunk : call.tokens;
    return round_up(wanted < 1 ? 1 : wanted < most ? wanted : most, kLane);  // no tokens have sizes too
  }
};

// Classes [first, first + count) of a block, and their scores.
struct ClassBlock {
  int64_t first, count;
  float* scores;
};

// What all threads share.
template <class E>
struct LossRoom {
  float* scores;  // (classes, tokens): tokens side by side, so that a vector is some tokens of one class
  E* across;      // the input in panels, one for each group of tokens, for the scores
  E* along;       // the input token by token, in panels of the dim, for the rows' gradients
  alignas(64) float lse[kTokens], gain[kTokens], slope[kTokens], aim[kTokens];
  float least;  // a block whose gradients are all below it adds nothing
};

// Sums over the classes that a thread has seen, one for each token.
struct Running {
  alignas(64) float largest[kTokens], sum[kTokens], spread[kTokens], mass[kTokens], picked[kTokens];
};

static_assert(sizeof(Running) % 64 == 0, "threads' lie side by side in working memory");

// What a thread has for itself.
template <class E>
struct LossHand {
  Running* running;
  float* d_input;  // (dim, tokens), summed over the thread's classes
  float* gradients;  // of a block's scores, not in their place: they stay in cache, 24 KB or 196 as pairs, with nothing to write back
  E* rows;         // a block of rows as they are, where memory's own do not serve
  E* panels;       // some columns of a block of rows as pairs of two classes; bfloat16 alone
  E* pairs;        // of two classes: gradients of scores, for the input's gradient; bfloat16 alone
  E* couples;      // of two tokens: the same for the rows' gradients
  float* spill;    // a strip of the rows' gradients, one panel wide, where it is not whole
};

}  // namespace manymax::MANYMAX_ISA
