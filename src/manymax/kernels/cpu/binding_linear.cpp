// The recurrence's part of the Python module. Tensors arrive as addresses and strides.
#include "binding.h"
#include "large_pages.h"
#include "linear/exchange.h"

namespace nb = nanobind;
using namespace manymax;

namespace {

template <class T>
T* pointer(nb::handle tuple, size_t i) {
  return reinterpret_cast<T*>(integer(tuple, i));
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
  for (const Tokens* x : {&call.out, &call.d_value}) ask_for_large_pages(x->data, entries * call.value_dim);
  for (const Tokens* x : {&call.d_query, &call.d_key}) ask_for_large_pages(x->data, entries * call.dim);
  functions[what](call);
}

Exchange exchange;

// Whether x is (batch, heads, tokens, dim) of the query's type, as kernels read tokens.
bool read_tokens(const Seen& x, const Seen& query, int64_t heads, int64_t dim, Tokens& tokens) {
  if (x.code != query.code || x.bits != query.bits || !x.side_by_side()) return false;
  if (!x.has({query.sizes[0], heads, query.sizes[2], dim})) return false;
  tokens = {x.at<void>(), x.strides[0], x.strides[1], x.strides[2]};
  return true;
}

// Whether x is None or holds a number of each of the first three dims, or, where `channels` says so, of all four, or one of a head.
bool read_numbers(nb::handle x, const Seen& query, bool* channels, Tokens& tokens) {
  if (x.is_none()) return true;
  Seen seen;
  if (!exchange.see(x, seen) || !seen.is_float32() || !seen.side_by_side()) return false;
  const int64_t *n = query.sizes, *strides = seen.strides;
  if (seen.has({n[0], n[1], n[2]}) || (channels && seen.has({n[0], n[1], n[2], n[3]}))) {
    if (channels) *channels = seen.dims == 4;
    tokens = {seen.at<void>(), strides[0], strides[1], strides[2]};
    return true;
  }
  tokens = {seen.at<void>(), 0, strides[0], 0};
  return channels && seen.has({n[1]});
}

bool read_state(nb::handle x, const LinearCall& call, float*& state) {
  Seen seen;
  if (!exchange.see(x, seen) || !seen.is_float32() || !seen.contiguous()) return false;
  state = seen.at<float>();
  return seen.has({call.batch, call.query_heads, call.dim, call.value_dim});
}

// A few tokens. Returns whether it served the call: if not, it has written nothing, and a way that asks more of Python may.
// `initial` is None or a state, and may be `final`.
bool linear_step(nb::handle query, nb::handle key, nb::handle value, nb::handle log_decay, nb::handle beta, nb::handle initial,
                 nb::handle final, nb::handle out, int threads) {
  LinearCall call;
  Seen q, k, v, o;
  if (!exchange.see(query, q) || !exchange.see(key, k) || !exchange.see(value, v) || !exchange.see(out, o)) return false;
  if (q.dims != 4 || k.dims != 4 || v.dims != 4) return false;
  call.batch = q.sizes[0], call.query_heads = q.sizes[1], call.tokens = q.sizes[2], call.dim = q.sizes[3];
  call.key_heads = k.sizes[1], call.value_dim = v.sizes[3], call.threads = threads;
  const int64_t entries = call.batch * call.query_heads * call.tokens * call.dim * call.value_dim;
  if (entries == 0 || call.key_heads == 0 || call.query_heads % call.key_heads) return false;
  if (q.is_float32()) call.dtype = DType::f32;
  else if (q.bits == 16 && (q.code == 4 || q.code == 2)) call.dtype = q.code == 4 ? DType::bf16 : DType::f16;
  else return false;
  float *from = nullptr, *to = nullptr;
  if (!read_tokens(q, q, call.query_heads, call.dim, call.query) || !read_tokens(k, q, call.key_heads, call.dim, call.key) ||
      !read_tokens(v, q, call.key_heads, call.value_dim, call.value) || !read_tokens(o, q, call.query_heads, call.value_dim, call.out))
    return false;
  if (!read_numbers(log_decay, q, &call.channels, call.log_decay) || !read_numbers(beta, q, nullptr, call.beta)) return false;
  if ((call.channels && call.beta.data) || !read_state(final, call, to)) return false;
  if (initial.is(final)) from = to;
  else if (!initial.is_none() && !read_state(initial, call, from)) return false;
  call.initial_state = from, call.final_state = to;
  if (entries < int64_t{1} << 18) {  // 10 us: less than what another thread of Python would gain
    chosen().linear.step(call);
    return true;
  }
  nb::gil_scoped_release release;
  chosen().linear.step(call);
  return true;
}

}  // namespace

void define_linear(nb::module_& m) {
  m.def("linear", &linear);
  m.def("learn_tensors", [](nb::handle type) { return exchange.learn(type); });
  m.def("linear_step", &linear_step, nb::arg().none(), nb::arg().none(), nb::arg().none(), nb::arg().none(), nb::arg().none(),
        nb::arg().none(), nb::arg().none(), nb::arg().none(), nb::arg());
}
