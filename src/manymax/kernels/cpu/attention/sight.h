// Which keys a block of queries sees: the band (causality and window), the mask, and additions of -inf. Blocks that see nothing
// are left out, and blocks that see everything need no look at single scores.
#pragma once

#include "pack.h"

namespace manymax::MANYMAX_ISA {

// A block of scores: queries [i, i + rows) against keys [j, j + columns) of one head; columns may pass the last key.
struct Block {
  const AttentionCall* call;
  int64_t batch, head;
  int64_t i, rows;
  int64_t j, columns;
};

struct Range {
  int64_t first, last;
};

MM_INLINE int64_t between(int64_t x, int64_t low, int64_t high) { return x < low ? low : x > high ? high : x; }

// The keys that some of the queries [i, i + rows) see in the band.
MM_INLINE Range keys_of(const AttentionCall& call, int64_t i, int64_t rows) {
  const int64_t first = between(i + call.low, 0, call.keys);
  return {first, between(i + rows + call.high, first, call.keys)};
}

// The queries that see some of the keys [j, j + columns) in the band.
MM_INLINE Range queries_of(const AttentionCall& call, int64_t j, int64_t columns) {
  const int64_t first = between(j - call.high, 0, call.queries);
  return {first, between(j + columns - call.low, first, call.queries)};
}

enum class Sight { none, some, all };

template <class T>
MM_INLINE const T* entry(const OnScores& x, const Block& at, int64_t i, int64_t j) {
  return static_cast<const T*>(x.data) + at.batch * x.batch + at.head * x.head + i * x.query + j * x.key;
}

typedef uint8_t VU8 __attribute__((vector_size(kLane)));

// Which of the n entries of a mask's row, of a key stride of 0 or 1, are set.
MM_INLINE Mask<float> read_mask(const uint8_t* p, int64_t step, int64_t n) {
  if (step == 0) return splat<Bits<float>>(*p ? -1 : 0);
  VU8 x{};
  if (n >= kLane) {
    __builtin_memcpy(&x, p, kLane);
  } else {
    __builtin_memcpy(&x, p, static_cast<size_t>(n));
  }
  return __builtin_convertvector(x, Mask<float>) != Mask<float>{};
}

template <class S>
MM_INLINE VF read_as(const S* p, int64_t step, int64_t n) {
  if (step == 0) return splat(as_float(*p));
  return load_some(p, n);
}

// n > 0 entries of a row of an addition from query i and key j on.
MM_INLINE VF read_addition(const OnScores& x, const Block& at, int64_t i, int64_t j, int64_t n) {
  if (x.dtype == DType::f32) return read_as(entry<float>(x, at, i, j), x.key, n);
  if (x.dtype == DType::bf16) return read_as(entry<BF16>(x, at, i, j), x.key, n);
  return read_as(entry<F16>(x, at, i, j), x.key, n);
}

// The part of a row's n columns that the band shows query i, from key j on.
MM_INLINE Range band_of(const AttentionCall& call, int64_t i, int64_t j, int64_t n) {
  const int64_t left = call.keys - j, end = n < left ? n : left;
  const int64_t first = between(i + call.low - j, 0, end);
  return {first, between(i + call.high + 1 - j, first, end)};
}

// Whether a mask shows all, some or none of a block.
static inline Sight look_at_mask(const Block& at, const OnScores& mask) {
  const int64_t left = at.call->keys - at.j;
  const int64_t rows = mask.query ? at.rows : 1, columns = mask.key == 0 ? 1 : at.columns < left ? at.columns : left;
  typedef uint8_t Bytes __attribute__((vector_size(kVectorBytes)));
  uint8_t any_set = 0, all_set = 1;
  for (int64_t r = 0; r < rows; ++r) {
    const uint8_t* p = entry<uint8_t>(mask, at, at.i + r, at.j);
    Bytes either{}, both = ~either;
    int64_t c = 0;
    for (; c + kVectorBytes <= columns; c += kVectorBytes) {
      Bytes x;
      __builtin_memcpy(&x, p + c, sizeof x);
      either |= x, both &= x;
    }
    for (; c < columns; ++c) any_set |= p[c], all_set &= p[c];
    if (columns >= kVectorBytes)
      for (int k = 0; k < kVectorBytes; ++k) any_set |= either[k], all_set &= both[k];
    if (any_set && !all_set) return Sight::some;
  }
  return any_set ? Sight::all : Sight::none;
}

// Whether an addition leaves some of a block in sight: nearly always its first entry does.
static inline bool shows(const Block& at, const OnScores& x) {
  const int64_t left = at.call->keys - at.j;
  const int64_t rows = x.query ? at.rows : 1, columns = x.key == 0 ? 1 : at.columns < left ? at.columns : left;
  for (int64_t r = 0; r < rows; ++r)
    for (int64_t c = 0; c < columns; c += kLane) {
      const int64_t n = columns - c;
      const Mask<float> inside = n >= kLane ? ~Mask<float>{} : first_lanes<float>(n);
      if (any((read_addition(x, at, at.i + r, at.j + c, n) != -kInfinity<float>) & inside)) return true;
    }
  return false;
}

// What band, mask and additions leave of a block. Sight::all: nothing is hidden but where additions are -inf.
static inline Sight look(const Block& at) {
  const AttentionCall& call = *at.call;
  const int64_t last_row = at.i + at.rows - 1, last_column = at.j + at.columns - 1;
  if (at.j - last_row > call.high || last_column - at.i < call.low) return Sight::none;
  const bool inside = last_column - at.i <= call.high && at.j - last_row >= call.low && last_column < call.keys;
  for (const OnScores& x : call.additions)
    if (x.data && !shows(at, x)) return Sight::none;
  const Sight band = inside ? Sight::all : Sight::some;
  if (!call.mask.data) return band;
  const Sight mask = look_at_mask(at, call.mask);
  return mask < band ? mask : band;
}

// Which of n entries from (i, j) on are seen.
MM_INLINE Mask<float> seen_from(const Block& at, int64_t i, int64_t j, int64_t n) {
  const AttentionCall& call = *at.call;
  const Range band = band_of(call, i, j, n < kLane ? n : kLane);
  Mask<float> seen = first_lanes<float>(band.last) & ~first_lanes<float>(band.first);
  if (call.mask.data) seen &= read_mask(entry<uint8_t>(call.mask, at, i, j), call.mask.key, n);
  for (const OnScores& x : call.additions)
    if (x.data) seen &= read_addition(x, at, i, j, n) != -kInfinity<float>;
  return seen;
}

// How many keys query i of a head sees.
static inline int64_t count_seen(const AttentionCall& call, int64_t batch, int64_t head, int64_t i) {
  const Range band = keys_of(call, i, 1);
  if (!call.mask.data && !call.additions[0].data) return band.last - band.first;
  const Block at{&call, batch, head, i, 1, 0, call.keys};
  Mask<float> less{};
  for (int64_t j = band.first; j < band.last; j += kLane) less += seen_from(at, i, j, band.last - j);
  int64_t count = 0;
  for (int lane = 0; lane < kLane; ++lane) count -= less[lane];
  return count;
}

}  // namespace manymax::MANYMAX_ISA
