// The output layers' part of the Python module. Tensors arrive as addresses of contiguous memory.
#include "binding.h"
#include "large_pages.h"

namespace nb = nanobind;
using namespace manymax;

namespace {

template <class T>
T* pointer(nb::handle tuple, size_t i) {
  return reinterpret_cast<T*>(integer(tuple, i));
}

// The tuples follow LossCall's order.
void cross_entropy(int dtype, nb::tuple sizes, nb::tuple pointers, double smoothing, double softcap, double penalty, double skip,
                   int64_t chunk, int threads) {
  if (sizes.size() != 5 || pointers.size() != 14) throw nb::value_error("expected 5 sizes and 14 pointers");
  LossCall call;
  call.dtype = static_cast<DType>(dtype);
  call.tokens = integer(sizes, 0), call.classes = integer(sizes, 1), call.dim = integer(sizes, 2);
  call.input_step = integer(sizes, 3), call.rows_step = integer(sizes, 4);
  call.input = pointer<const void>(pointers, 0), call.rows = pointer<const void>(pointers, 1);
  call.bias = pointer<const float>(pointers, 2), call.weight = pointer<const float>(pointers, 3);
  call.target = pointer<const int64_t>(pointers, 4), call.probabilities = pointer<const float>(pointers, 5);
  call.losses = pointer<float>(pointers, 6), call.lse = pointer<float>(pointers, 7);
  call.d_losses = pointer<const float>(pointers, 8), call.d_lse = pointer<const float>(pointers, 9);
  call.d_input = pointer<void>(pointers, 10);
  call.d_rows = pointer<float>(pointers, 11), call.d_bias = pointer<float>(pointers, 12);
  call.narrow_rows = pointer<void>(pointers, 13);
  call.smoothing = smoothing, call.softcap = softcap, call.penalty = penalty, call.skip = skip;
  call.chunk = chunk, call.threads = threads;
  nb::gil_scoped_release release;
  const int64_t entries = call.classes * call.dim;
  ask_for_large_pages(call.d_rows, entries * static_cast<int64_t>(sizeof(float)));
  ask_for_large_pages(call.narrow_rows, entries * static_cast<int64_t>(sizeof(uint16_t)));
  chosen().loss(call);
}

}  // namespace

void define_heads(nb::module_& m) { m.def("cross_entropy", &cross_entropy); }
