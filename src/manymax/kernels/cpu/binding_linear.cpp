// The recurrence's part of the Python module. Tensors arrive as addresses and strides.
#include "binding.h"

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
  functions[what](call);
}

}  // namespace

void define_linear(nb::module_& m) { m.def("linear", &linear); }
