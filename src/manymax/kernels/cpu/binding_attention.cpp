// Attention's part of the Python module. Tensors arrive as addresses and strides.
#include "binding.h"

namespace nb = nanobind;
using namespace manymax;

namespace {

int find_attention(const char* name) {
  for (int i = 0; i < chosen().attentions_count; ++i)
    if (std::strcmp(chosen().attentions[i].name, name) == 0) return i;
  return -1;
}

// (address, dtype, strides of batch, head, query and key), or None.
OnScores on_scores(nb::handle x) {
  if (x.is_none()) return {};
  return {reinterpret_cast<const void*>(integer(x, 0)), static_cast<DType>(integer(x, 1)), integer(x, 2), integer(x, 3),
          integer(x, 4), integer(x, 5)};
}

template <class T>
T* pointer(nb::handle tuple, size_t i) {
  return reinterpret_cast<T*>(integer(tuple, i));
}

void set_pointers(AttentionCall& call, nb::handle x) {
  call.d_additions[0] = pointer<float>(x, 0), call.d_additions[1] = pointer<float>(x, 1);
  call.sinks = pointer<const float>(x, 2), call.d_sinks = pointer<float>(x, 3);
  call.stats = pointer<float>(x, 4), call.lse = pointer<float>(x, 5), call.d_lse = pointer<const float>(x, 6);
}

// what: 0 forward, 1 backward, 2 decode. The tuples follow AttentionCall's order.
void attention(int map, int what, int dtype, nb::tuple sizes, nb::tuple tensors, nb::tuple scores, nb::tuple pointers,
               int64_t low, int64_t high, double scale, double softcap, double temperature, double dropout,
               uint64_t seed, nb::tuple options, int threads) {
  if (sizes.size() != 7 || tensors.size() != 8 || scores.size() != 1 + kMaxAdditions || pointers.size() != 7 ||
      options.size() > kMaxOptions)
    throw nb::value_error("expected 7 sizes, 8 tensors, 3 on scores, 7 pointers and at most 4 options");
  AttentionCall call;
  call.dtype = static_cast<DType>(dtype);
  call.batch = integer(sizes, 0), call.query_heads = integer(sizes, 1), call.key_heads = integer(sizes, 2);
  call.queries = integer(sizes, 3), call.keys = integer(sizes, 4);
  call.dim = integer(sizes, 5), call.value_dim = integer(sizes, 6);
  Tokens* const all[] = {&call.query, &call.key, &call.value, &call.out, &call.d_out, &call.d_query, &call.d_key, &call.d_value};
  for (size_t i = 0; i < 8; ++i) *all[i] = tokens(tensors[i]);
  call.mask = on_scores(scores[0]);
  for (size_t i = 0; i < kMaxAdditions; ++i) call.additions[i] = on_scores(scores[1 + i]);
  set_pointers(call, pointers);
  call.low = low, call.high = high, call.scale = scale, call.softcap = softcap, call.temperature = temperature;
  call.dropout = dropout, call.seed = seed, call.threads = threads;
  for (size_t i = 0; i < options.size(); ++i) call.options[i] = nb::cast<double>(options[i]);
  const AttentionEntry& entry = attention_entry(map);
  const AttentionFunction functions[] = {entry.forward, entry.backward, entry.decode};
  if (what < 0 || what > 2 || functions[what] == nullptr) throw nb::value_error("what: this map has no such kernel");
  nb::gil_scoped_release release;
  functions[what](call);
}

// The rate of attention's products on this machine: operations done, which the caller divides by the time.
double peak(int dtype, int threads, int64_t repeats) {
  nb::gil_scoped_release release;
  return chosen().peak(static_cast<DType>(dtype), threads, repeats);
}

}  // namespace

void define_attention(nb::module_& m) {
  m.def("find_attention", &find_attention, "The number of a map's attention kernels, or -1.");
  m.def("attention", &attention);
  m.def("peak", &peak, "Run products in cache `repeats` times on each thread; return the operations done.");
}
