// Which weights dropout keeps. A pair of query and key decides by itself, through a hash of its place and the seed, so that
// backwards finds what forwards did, whatever the blocks are.
#pragma once

#include "sight.h"

namespace manymax::MANYMAX_ISA {

struct Dropout {
  uint64_t seed;
  uint32_t threshold;  // a hash below it is dropped
  float factor;        // of what is kept

  explicit Dropout(const AttentionCall& call)
      : seed(call.seed),
        threshold(static_cast<uint32_t>(call.dropout < 1 ? call.dropout * 4294967296.0 : 0)),
        factor(call.dropout < 1 ? static_cast<float>(1 / (1 - call.dropout)) : 0.0f) {}
};

// What a query's weights are multiplied with: 0 or the factor.
struct RowDropout {
  uint32_t key;
  Dropout dropout;

  RowDropout(const Dropout& dropout, const AttentionCall& call, int64_t batch, int64_t head, int64_t query) : dropout(dropout) {
    // One step of splitmix64, whose output passes tests of randomness even for consecutive inputs.
    const uint64_t row = static_cast<uint64_t>((batch * call.query_heads + head) * call.queries + query);
    uint64_t x = dropout.seed + 0x9e3779b97f4a7c15u * (row + 1);
    x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
    x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
    key = static_cast<uint32_t>(x >> 32) ^ static_cast<uint32_t>(x);
  }

  // For kLane keys from j on: the finaliser of MurmurHash3, between two additions of the row's key.
  MM_MEMBER VF factors(int64_t j) const {
    VU32 x = bit_cast<VU32>(iota<Bits<float>>()) + static_cast<uint32_t>(j);
    x = x * 0x9e3779b1u + key;
    x = (x ^ (x >> 16)) * 0x85ebca6bu;
    x = (x ^ (x >> 13)) * 0xc2b2ae35u + key;
    x ^= x >> 16;
    return bit_cast<VF>(bit_cast<VU32>(splat(dropout.factor)) & bit_cast<VU32>(x >= dropout.threshold));
  }
};

}  // namespace manymax::MANYMAX_ISA
