// Sizes of a call, a chunk of its tokens, and one thread's memory.
#pragma once

#include "../types.h"
#include "matrix.h"

namespace manymax::MANYMAX_ISA {

inline constexpr int64_t kSpan = 48;  // a chunk is a multiple of it: whole strips, sub-chunks, and vectors of any instruction set
inline constexpr int64_t kSub = 16;   // tokens of a sub-chunk, for decays per channel

struct LinearSizes {
  int64_t chunk;                   // tokens
  int64_t key_width, value_width;  // dims rounded up to whole vectors
  int64_t state_rows;              // of a state in memory: whole strips and whole vectors; those behind dim hold zeros or are not read
  int64_t chunks;                  // of a head

  explicit LinearSizes(const LinearCall& call)
      : chunk(call.chunk > 0 ? round_up(call.chunk < 4 * kSpan ? call.chunk : 4 * kSpan, kSpan) : kSpan),
        key_width(round_up(call.dim, kLane)),
        value_width(round_up(call.value_dim, kLane)),
        state_rows(round_up(call.dim, kStrip) > key_width ? round_up(call.dim, kStrip) : key_width),
        chunks((call.tokens + chunk - 1) / chunk) {}
  int64_t state() const { return state_rows * value_width; }
};

// Tokens [first, first + count) of a query head.
struct Chunk {
  int64_t batch, head, first, count;
  int64_t rows() const { return round_up(count, kStrip); }
};

// Hands out parts of a piece of memory, or counts them where there is none. Products read up to a vector behind a part.
class Carver {
 public:
  explicit Carver(float* memory) : end_(reinterpret_cast<uintptr_t>(memory)) {}
  float* take(int64_t count) {
    float* const part = reinterpret_cast<float*>(end_);
    end_ += static_cast<uintptr_t>(round_up(count + 16, 16)) * sizeof(float);
    return part;
  }
  Matrix take(int64_t rows, int64_t columns) { return {take(rows * columns), columns}; }
  int64_t taken() const { return static_cast<int64_t>(end_ / sizeof(float)); }

 private:
  uintptr_t end_;  // an address, since the size is counted from none
};

// The factors by which a chunk's states shrink: exp of sums of log_decay over stretches of tokens, each at most 1, so that nothing
// overflows and a factor of 0 forgets without a NaN.
struct Decays {
  Matrix each;                    // of a token; doubles if scalar, with room for a row of `between`
  Matrix before, after;           // of the tokens up to i, i among them, and of those behind j; as wide as a key
  Matrix from_start, to_end;      // per channel: the same within a sub-chunk
  Matrix between;                 // scalar: of the tokens behind j up to i, 0 where j > i
  float* whole;                   // of all, for each row of a state
  int64_t head = -1, count = -1;  // what they were made for

  Decays(Carver& carver, const LinearCall& call, const LinearSizes& z)
      : each(carver.take(z.chunk, call.channels ? z.key_width : 4)),
        before(carver.take(z.chunk, z.key_width)),
        after(carver.take(z.chunk, z.key_width)),
        from_start(carver.take(call.channels ? z.chunk : 0, z.key_width)),
        to_end(carver.take(call.channels ? z.chunk : 0, z.key_width)),
        between(carver.take(call.channels ? 0 : z.chunk, z.chunk)),
        whole(carver.take(z.state_rows)) {}
};

struct Room {
  Decays decays;
  Matrix query, key, value, keys_across;  // packed; the last one is the key's transpose
  Matrix scaled;                          // queries or keys times factors of decay
  Matrix scores, out;
  Matrix state;
  Matrix near;          // per channel: keys relative to the start of a sub-chunk
  Matrix weights, error, values;  // delta rule: decayed products of keys, what the state does not know yet, and that times beta
  Matrix minus_values;
  float* beta;

  Room(Carver& carver, const LinearCall& call, const LinearSizes& z)
      : decays(carver, call, z),
        query(carver.take(z.chunk, z.key_width)),
        key(carver.take(z.chunk, z.key_width)),
        value(carver.take(z.chunk, z.value_width)),
        keys_across(carver.take(z.key_width, z.chunk)),
        scaled(carver.take(z.chunk + kLane, z.key_width)),
        scores(carver.take(z.chunk + kLane, z.chunk)),
        out(carver.take(z.chunk, z.value_width)),
        state(carver.take(z.state_rows, z.value_width)),
        near(carver.take(call.channels ? z.chunk : 0, z.key_width)),
        weights(carver.take(delta(call, z.chunk), z.chunk)),
        error(carver.take(delta(call, z.chunk), z.value_width)),
        values(carver.take(delta(call, z.chunk), z.value_width)),
        minus_values(carver.take(delta(call, z.chunk), z.value_width)),
        beta(carver.take(delta(call, z.chunk))) {}

 private:
  static int64_t delta(const LinearCall& call, int64_t rows) { return call.beta.data ? rows : 0; }
};

// Floats that a room takes.
template <class AnyRoom>
static int64_t size_of(const LinearCall& call, const LinearSizes& z) {
  Carver counter(nullptr);
  AnyRoom(counter, call, z);
  return counter.taken();
}

}  // namespace manymax::MANYMAX_ISA
