// The Python module manymax.kernels._cpu. Tensors arrive as addresses, sizes and strides: nothing here knows torch.
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include <string>
#include <utility>
#include <vector>

#include "binding.h"

namespace nb = nanobind;
using namespace manymax;

namespace {

const Kernels* kernels = nullptr;

std::vector<std::string> isas() {
  std::vector<std::string> names;
  for (int i = 0; const Kernels* k = runnable(i); ++i) names.emplace_back(k->isa);
  return names;
}

// `forced` is MANYMAX_ISA's value, "" for the best.
const char* choose_or_raise(const std::string& forced) {
  const Kernels* chosen = choose(forced.c_str());
  if (chosen == nullptr) {
    std::string known;
    for (const std::string& name : isas()) known += (known.empty() ? "" : ", ") + name;
    const std::string message = "MANYMAX_ISA: expected one of " + known + " on this machine, got '" + forced + "'";
    throw nb::value_error(message.c_str());
  }
  kernels = chosen;
  return chosen->isa;
}

int find_rows(const char* name) {
  for (int i = 0; i < kernels->rows_count; ++i)
    if (std::strcmp(kernels->rows[i].name, name) == 0) return i;
  return -1;
}

const RowsEntry& entry(int map) {
  if (map < 0 || map >= kernels->rows_count) throw nb::value_error("map: expected a number that find_rows returned");
  return kernels->rows[map];
}

void call_rows(int map, bool backward, const RowsCall& call) {
  const RowsFunction function = backward ? entry(map).backward : entry(map).forward;
  if (function == nullptr) throw nb::value_error("map: it has no backward");
  nb::gil_scoped_release release;
  function(call);
}

void fill(Operand& operand, uintptr_t address) { operand.data = reinterpret_cast<const void*>(address); }

void set_options(RowsCall& call, double temperature, nb::tuple options) {
  call.temperature = temperature;
  if (options.size() > kMaxOptions) throw nb::value_error("options: expected at most 4 numbers");
  for (size_t i = 0; i < options.size(); ++i) call.options[i] = nb::cast<double>(options[i]);
}

// Rows that lie one behind the other in every operand, without a mask; grad is 0 forwards.
void rows(int map, uintptr_t x, uintptr_t grad, uintptr_t y, int dtype, int64_t count, int64_t n, int64_t y_n,
          double temperature, nb::tuple options, int threads) {
  RowsCall call;
  fill(call.x, x), fill(call.grad, grad), fill(call.y, y);
  call.dtype = static_cast<DType>(dtype);
  call.dims = 1, call.sizes[0] = call.rows = count, call.n = n, call.threads = threads;
  call.x.strides[0] = call.grad.strides[0] = n, call.y.strides[0] = y_n;
  set_options(call, temperature, options);
  call_rows(map, grad != 0, call);
}

// sizes: of the rows' grid, then n. Each operand: its address and its strides in entries, along the grid and then n.
void set_operand(Operand& operand, uintptr_t address, nb::tuple strides, int dims) {
  fill(operand, address);
  if (address == 0) return;
  if (static_cast<int>(strides.size()) != dims + 1) throw nb::value_error("strides: expected as many as sizes");
  for (int d = 0; d < dims; ++d) operand.strides[d] = nb::cast<int64_t>(strides[d]);
  operand.step = nb::cast<int64_t>(strides[dims]);
}

// Order the grid so that rows that follow each other lie near each other: x's widest stride first.
void sort_dims(RowsCall& call) {
  for (int end = call.dims; end > 1; --end) {
    for (int d = 0; d + 1 < end; ++d) {
      if (call.x.strides[d] >= call.x.strides[d + 1] && call.sizes[d + 1] > 1) continue;
      std::swap(call.sizes[d], call.sizes[d + 1]);
      for (Operand* operand : {&call.x, &call.grad, &call.mask, &call.y})
        std::swap(operand->strides[d], operand->strides[d + 1]);
    }
  }
}

// Join dims of the grid that lie as one in every operand: kernels find out where a row is with a division a dim.
void join_dims(RowsCall& call) {
  Operand* const operands[] = {&call.x, &call.grad, &call.mask, &call.y};
  for (int d = call.dims - 2; d >= 0; --d) {
    bool joint = true;
    for (const Operand* operand : operands) joint &= operand->strides[d] == operand->strides[d + 1] * call.sizes[d + 1];
    if (!joint) continue;
    call.sizes[d] *= call.sizes[d + 1];
    for (Operand* operand : operands) operand->strides[d] = operand->strides[d + 1];
    --call.dims;
    for (int k = d + 1; k < call.dims; ++k) {
      call.sizes[k] = call.sizes[k + 1];
      for (Operand* operand : operands) operand->strides[k] = operand->strides[k + 1];
    }
  }
}

void strided_rows(int map, uintptr_t x, nb::tuple x_strides, uintptr_t grad, nb::tuple grad_strides, uintptr_t mask,
                  nb::tuple mask_strides, uintptr_t y, nb::tuple y_strides, int dtype, nb::tuple sizes,
                  double temperature, nb::tuple options, int threads) {
  RowsCall call;
  call.dims = static_cast<int>(sizes.size()) - 1;
  if (call.dims < 0 || call.dims > kMaxDims) throw nb::value_error("sizes: expected 1 to 9");
  call.dtype = static_cast<DType>(dtype);
  call.threads = threads, call.rows = 1;
  for (int d = 0; d < call.dims; ++d) call.rows *= call.sizes[d] = nb::cast<int64_t>(sizes[d]);
  call.n = nb::cast<int64_t>(sizes[call.dims]);
  set_operand(call.x, x, x_strides, call.dims), set_operand(call.grad, grad, grad_strides, call.dims);
  set_operand(call.mask, mask, mask_strides, call.dims), set_operand(call.y, y, y_strides, call.dims);
  set_options(call, temperature, options);
  sort_dims(call);
  join_dims(call);
  call_rows(map, grad != 0, call);
}

}  // namespace

const Kernels& chosen() { return *kernels; }

int64_t integer(nb::handle tuple, size_t i) { return nb::cast<int64_t>(tuple[i]); }

Tokens tokens(nb::handle x) {
  if (x.is_none()) return {};
  return {reinterpret_cast<const void*>(integer(x, 0)), integer(x, 1), integer(x, 2), integer(x, 3)};
}

NB_MODULE(_cpu, m) {
  m.def("choose", &choose_or_raise, "Select an instruction set, or the best for an empty name; once, before any other call.");
  m.def("isas", &isas, "Names of the instruction sets that this machine can run, best first.");
  m.def("find_rows", &find_rows, "The number of a map's row kernels, or -1.");
  m.def("reads_weights", [](int map) { return entry(map).backward_reads_weights; });
  m.def("has_backward", [](int map) { return entry(map).backward != nullptr; });
  m.def("rows", &rows);
  m.def("strided_rows", &strided_rows);
  define_attention(m);
  define_heads(m);
  define_linear(m);
  define_studies(m);
}
