// Where a row's entries come from and go to. A row of float32 or float64 that lies contiguous, without mask and with
// temperature 1, is used where it is; any other row passes through a buffer of kChunk entries of the compute type, with
// masked entries replaced by -inf ("not there"), so that kernels see one layout, two types and no mask.
#pragma once

#include "convert.h"
#include "types.h"

namespace manymax::MANYMAX_ISA {

// 4096 entries, 16 KB of float32: long enough to spread the start and the end of two loops, and three buffers still fit in
inline constexpr int64_t kChunk = 4096;

struct Source {
  const void* data;
  int64_t step;
  const uint8_t* mask;  // null: all visible
  int64_t mask_step;
  double temperature;
};

template <class S>
MM_INLINE Vec<Compute<S>> gather(const S* p, int64_t step, int64_t n) {
  using C = Compute<S>;
  if (step == 1) return n >= kLanes<C> ? load_as(p) : load_as(p, n);
  S whole[kLanes<C>] = {};
  for (int64_t i = 0; i < n && i < kLanes<C>; ++i) whole[i] = p[i * step];
  return load_as(whole);
}

// A byte for each lane.
template <class C>
struct BytesOf;
template <>
struct BytesOf<float> {
  typedef uint8_t type __attribute__((vector_size(kLanes<float>)));
};
template <>
struct BytesOf<double> {
  typedef uint8_t type __attribute__((vector_size(kLanes<double>)));
};

template <class C>
MM_INLINE Mask<C> gather_mask(const uint8_t* p, int64_t step, int64_t n) {
  typename BytesOf<C>::type bytes{};
  if (step == 1 && n >= kLanes<C>) {
    __builtin_memcpy(&bytes, p, sizeof bytes);
  } else {
    for (int64_t i = 0; i < n && i < kLanes<C>; ++i) bytes[i] = p[i * step];
  }
  return __builtin_convertvector(bytes, Mask<C>) != 0;
}

// Copy entries [first, first + n) of a row to `out`, as the compute type, masked and divided by the temperature.
template <class S>
static void stage(const Source& source, int64_t first, int64_t n, Compute<S>* out) {
  using C = Compute<S>;
  const S* p = static_cast<const S*>(source.data) + first * source.step;
  const uint8_t* m = source.mask ? source.mask + first * source.mask_step : nullptr;
  const Vec<C> temperature = splat(static_cast<C>(source.temperature));
  for (int64_t i = 0; i < n; i += kLanes<C>) {
    Vec<C> x = gather(p + i * source.step, source.step, n - i);
    if (source.temperature != 1) x = x / temperature;
    if (m) x = gather_mask<C>(m + i * source.mask_step, source.mask_step, n - i) ? x : splat(-kInfinity<C>);
    if (n - i >= kLanes<C>) {
      store(out + i, x);
    } else {
      store(out + i, n - i, x);
    }
  }
}

// Copy n entries of the compute type to entries [first, first + n) of a row, divided by the temperature.
template <class S>
static void unstage(void* data, int64_t step, double temperature, int64_t first, int64_t n, const Compute<S>* in) {
  using C = Compute<S>;
  S* p = static_cast<S*>(data) + first * step;
  const Vec<C> divisor = splat(static_cast<C>(temperature));
  for (int64_t i = 0; i < n; i += kLanes<C>) {
    const int64_t count = n - i < kLanes<C> ? n - i : kLanes<C>;
    Vec<C> x = count == kLanes<C> ? load(in + i) : load(in + i, count, C{0});
    if (temperature != 1) x = x / divisor;
    if (step != 1) {
      S whole[kLanes<C>];
      store_as(whole, x);
      for (int64_t k = 0; k < count; ++k) p[(i + k) * step] = whole[k];
    } else if (count == kLanes<C>) {
      store_as(p + i, x);
    } else {
      store_as(p + i, count, x);
    }
  }
}

// Kernels' members: compiled once for a compute type, not once for every place that calls them.
#define MM_OUTLINE __attribute__((noinline))

// A row to read in chunks of at most kChunk entries.
template <class C>
struct Reader {
  const C* direct = nullptr;
  Source source{};
  void (*copy)(const Source&, int64_t, int64_t, C*) = nullptr;
  C* buffer = nullptr;

  const C* get(int64_t first, int64_t n) const {
    if (direct) return direct + first;
    copy(source, first, n, buffer);
    return buffer;
  }
};

// A row to write in chunks of at most kChunk entries: begin, fill, end.
template <class C>
struct Writer {
  C* direct = nullptr;
  void* data = nullptr;
  int64_t step = 1;
  double temperature = 1;
  void (*copy)(void*, int64_t, double, int64_t, int64_t, const C*) = nullptr;
  C* buffer = nullptr;
  C* room = nullptr;     // a place for as many entries as the kernel's room(n) says
  bool streams = false;  // past the caches

  C* begin(int64_t first) const { return direct ? direct + first : buffer; }
  void end(int64_t first, int64_t n) const {
    if (!direct) copy(data, step, temperature, first, n, buffer);
  }
};

}  // namespace manymax::MANYMAX_ISA
