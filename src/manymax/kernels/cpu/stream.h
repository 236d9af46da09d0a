// Writing a row's entries, past the caches where the call's output is larger than they are: a line is then neither read
// before it is written nor put in the place of another that is needed. Two threads copied 256 MB at 100 GB/s so, and at
// 70 with plain stores.
#pragma once

#include "loops.h"

namespace manymax::MANYMAX_ISA {

// Outputs from here on pass by the caches. Processors' last caches begin at about this size; what the operating system
// says of them is of no use in virtual machines (384 MB here, of which 32 are ours).
inline constexpr int64_t kStreamBytes = int64_t{32} << 20;

// Store to a multiple of the vector's size.
#if defined(__AVX512F__)
MM_INLINE void stream(float* p, VF x) { _mm512_stream_ps(p, x); }
MM_INLINE void stream(double* p, VD x) { _mm512_stream_pd(p, x); }
#elif defined(__AVX2__)
MM_INLINE void stream(float* p, VF x) { _mm256_stream_ps(p, x); }
MM_INLINE void stream(double* p, VD x) { _mm256_stream_pd(p, x); }
#else
template <class C, class V>
MM_INLINE void stream(C* p, V x) { store(p, x); }
#endif

// Other threads see what was streamed only after this.
MM_INLINE void finish_streams() {
#if defined(__AVX2__)
  _mm_sfence();
#endif
}

// Write also(i, span, work(get(i, span), u)) to y for every vector of n entries, as `vectors` calls them.
template <class C, class Get, class Work, class Also>
MM_INLINE void put_vectors(C* y, bool streams, int64_t n, const Get& get, const Work& work, const Also& also) {
  const auto ahead = static_cast<int64_t>(-reinterpret_cast<uintptr_t>(y) % kVectorBytes / sizeof(C));
  const int64_t head = !streams ? 0 : ahead < n ? ahead : n;
  if (head > 0) store(y, Rest{head}, also(0, Rest{head}, work(get(0, Rest{head}), 0)));
  const auto later = [&](int64_t i, auto span) { return get(head + i, span); };
  vectors<C>(n - head, later, work, [&](int64_t i, auto span, auto out) {
    const Vec<C> w = also(head + i, span, out);
    if constexpr (__is_same(decltype(span), Whole)) {
      if (streams) return stream(y + head + i, w);
    }
    store(y + head + i, span, w);
  });
}

// y = body(x), or body(x, g), entry by entry.
struct Itself {
  template <class Span, class V>
  MM_MEMBER V operator()(int64_t, Span, V x) const {
    return x;
  }
};
template <class C, class Body>
MM_INLINE void map_over(const C* x, C* y, int64_t n, const Body& body, bool streams = false) {
  const auto get = [&](int64_t i, auto span) { return load(x + i, span, C{0}); };
  put_vectors(y, streams, n, get, [&](Vec<C> in, int) { return body(in); }, Itself{});
}
template <class C, class Body>
MM_INLINE void map_over(const C* x, const C* g, C* y, int64_t n, const Body& body, bool streams = false) {
  const auto get = [&](int64_t i, auto span) { return Two<C>{load(x + i, span, C{0}), load(g + i, span, C{0})}; };
  put_vectors(y, streams, n, get, [&](Two<C> in, int) { return body(in.x, in.g); }, Itself{});
}

// Entries [k, k + n) of a row from x's, and g's, of the same chunk.
template <class C, class Body>
MM_INLINE void write_entries(const Writer<C>& y, int64_t k, int64_t n, const C* x, const Body& body) {
  map_over(x, y.begin(k), n, body, y.streams);
  y.end(k, n);
}
template <class C, class Body>
MM_INLINE void write_entries(const Writer<C>& y, int64_t k, int64_t n, const C* x, const C* g, const Body& body) {
  map_over(x, g, y.begin(k), n, body, y.streams);
  y.end(k, n);
}

}  // namespace manymax::MANYMAX_ISA
