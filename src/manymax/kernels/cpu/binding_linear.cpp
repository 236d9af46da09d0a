// The recurrence's part of the Python module. Tensors arrive as addresses and strides.
#if defined(__linux__)
#include <sys/mman.h>
#endif

#include "binding.h"

namespace nb = nanobind;
using namespace manymax;

namespace {

template <class T>
T* pointer(nb::handle tuple, size_t i) {
  return reinterpret_cast<T*>(integer(tuple, i));
}

// Results from 32 MB on lie in memory of their own, new pages with every call. With pages of 4 KB a token of 32k, 8 heads of 64
// forwards, takes 1.5 times as long as one of 2k; with pages of 2 MB 1.15 times.
void ask_for_large_pages(const Tokens& x, int64_t bytes) {
#if defined(__linux__) && defined(MADV_HUGEPAGE)
  constexpr uintptr_t kPage = 4096;
  const uintptr_t first = (reinterpret_cast<uintptr_t>(x.data) + kPage - 1) / kPage * kPage;
  if (x.data && bytes >= int64_t{32} << 20) madvise(reinterpret_cast<void*>(first), static_cast<size_t>(bytes) - kPage, MADV_HUGEPAGE);
#else
  (void)x, (void)bytes;
#endif
}

// what: 0 forward, 1 backward, 2 step. The tuples follow LinearCall's order.
void linear(int what, int dtype, nb::tuple sizes, nb::tuple tensors, bool channels, nb::tuple pointers, int threads) {
  if (sizes.size() != 7 || tensors.size() != 10 || pointers.size() != 6)
    throw nb::value_error("expected 7 sizes, 10 tensors and 6 pointers");
  LinearCall call;
  call.dtype = static_cast<DType>(dtype);
  call.batch = integer(sizes, 0), call.query_heads = integer(sizes, 1), call.key_heads = integer(sizes, 2);
  call.tokens = integer(sizes, 3), call.dim = integer(sizes, 4), call.value_dim = integer(sizes, 5);
  call.chunk = integer(sizes, 6);
  Tokens* const all[] = {&call.query,   &call.key,   &call.value,   &call.out,       &call.d_out,
                         &call.d_query, &call.d_key, &call.d_value, &call.log_decay, &call.beta};
  for (size_t i = 0; i < 10; ++i) *all[i] = tokens(tensors[i]);
  call.channels = channels;
  call.d_log_decay = pointer<float>(pointers, 0), call.d_beta = pointer<float>(pointers, 1);
  call.initial_state = pointer<const float>(pointers, 2), call.d_final_state = pointer<const float>(pointers, 3);
  call.final_state = pointer<float>(pointers, 4), call.d_initial_state = pointer<float>(pointers, 5);
  call.threads = threads;
  const LinearEntry& entry = chosen().linear;
  const LinearFunction functions[] = {entry.forward, entry.backward, entry.step};
  if (what < 0 || what > 2) throw nb::value_error("what: expected 0, 1 or 2");
  nb::gil_scoped_release release;
  const int64_t entries = call.batch * call.query_heads * call.tokens * (call.dtype == DType::f32 ? 4 : 2);
  for (const Tokens* x : {&call.out, &call.d_value}) ask_for_large_pages(*x, entries * call.value_dim);
  for (const Tokens* x : {&call.d_query, &call.d_key}) ask_for_large_pages(*x, entries * call.dim);
  functions[what](call);
}

// A few tokens whose tensors are all contiguous: numbers alone, since reading tuples takes longer than the work. log_decay has
// `decay_dims` dims, and a pointer is 0 for what is not given.
void linear_step(int dtype, int64_t batch, int64_t heads, int64_t key_heads, int64_t tokens, int64_t dim, int64_t value_dim,
                 uintptr_t query, uintptr_t key, uintptr_t value, uintptr_t out, uintptr_t log_decay, int decay_dims,
                 uintptr_t beta, uintptr_t initial_state, uintptr_t final_state, int threads) {
  LinearCall call;
  call.dtype = static_cast<DType>(dtype), call.threads = threads;
  call.batch = batch, call.query_heads = heads, call.key_heads = key_heads;
  call.tokens = tokens, call.dim = dim, call.value_dim = value_dim;
  const auto contiguous = [&](uintptr_t address, int64_t count, int64_t width) -> Tokens {
    return {reinterpret_cast<const void*>(address), count * tokens * width, tokens * width, width};
  };
  call.query = contiguous(query, heads, dim), call.key = contiguous(key, key_heads, dim);
  call.value = contiguous(value, key_heads, value_dim), call.out = contiguous(out, heads, value_dim);
  call.channels = decay_dims == 4;
  call.log_decay = contiguous(log_decay, heads, call.channels ? dim : 1), call.beta = contiguous(beta, heads, 1);
  if (decay_dims == 1) call.log_decay.batch = 0, call.log_decay.head = 1, call.log_decay.token = 0;
  call.initial_state = reinterpret_cast<const float*>(initial_state);
  call.final_state = reinterpret_cast<float*>(final_state);
  nb::gil_scoped_release release;
  chosen().linear.step(call);
}

}  // namespace

void define_linear(nb::module_& m) {
  m.def("linear", &linear);
  m.def("linear_step", &linear_step);
}
