// bfloat16 and float16 of numbers that both hold exactly, for tests: a compiler's own types are not everywhere.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>

#include "types.h"

// A storage type's bits, to and from double.
struct Small {
  uint16_t bits;
};

inline uint16_t encode(double x, manymax::DType dtype) {
  if (x == 0) return 0;
  if (dtype == manymax::DType::bf16) {
    const float f = static_cast<float>(x);
    uint32_t bits;
    std::memcpy(&bits, &f, sizeof bits);
    return static_cast<uint16_t>(bits >> 16);
  }
  int exponent;
  const double fraction = std::frexp(std::fabs(x), &exponent);
  return static_cast<uint16_t>((x < 0 ? 0x8000 : 0) | (exponent + 14) << 10 | static_cast<int>((2 * fraction - 1) * 1024));
}

inline double decode(uint16_t bits, manymax::DType dtype) {
  if (dtype == manymax::DType::bf16) {
    const uint32_t wide = static_cast<uint32_t>(bits) << 16;
    float f;
    std::memcpy(&f, &wide, sizeof f);
    return f;
  }
  const int exponent = bits >> 10 & 31, fraction = bits & 1023;
  const double sign = bits & 0x8000 ? -1 : 1;
  if (exponent == 31) return fraction ? NAN : sign * INFINITY;
  return sign * (exponent == 0 ? std::ldexp(fraction, -24) : std::ldexp(1024 + fraction, exponent - 25));
}

inline void put(float& to, double x, manymax::DType) { to = static_cast<float>(x); }
inline void put(Small& to, double x, manymax::DType dtype) { to.bits = encode(x, dtype); }
inline double get(float x, manymax::DType) { return x; }
inline double get(Small x, manymax::DType dtype) { return decode(x.bits, dtype); }
