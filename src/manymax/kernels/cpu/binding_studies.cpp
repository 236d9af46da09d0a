// The studies' part of the Python module: kernels that claims measure.
#include "binding.h"

namespace nb = nanobind;
using namespace manymax;

namespace {

const Study& study(const char* name) {
  for (int i = 0; i < chosen().studies_count; ++i)
    if (std::strcmp(chosen().studies[i].name, name) == 0) return chosen().studies[i];
  throw nb::value_error("name: expected a study of kernels.h");
}

// The number that `attention` takes for a study.
int find_study(const char* name) {
  return chosen().attentions_count + static_cast<int>(&study(name) - chosen().studies);
}

// Rows of float32 that lie one behind the other.
void study_rows(const char* name, uintptr_t x, uintptr_t y, int64_t count, int64_t n, nb::tuple options, int threads) {
  const RowsFunction function = study(name).rows;
  if (function == nullptr) throw nb::value_error("name: expected a study of rows");
  if (options.size() > kMaxOptions) throw nb::value_error("options: expected at most 4 numbers");
  RowsCall call;
  call.x.data = reinterpret_cast<const void*>(x), call.y.data = reinterpret_cast<const void*>(y);
  call.dims = 1, call.sizes[0] = call.rows = count, call.n = call.x.strides[0] = call.y.strides[0] = n;
  call.threads = threads;
  for (size_t i = 0; i < options.size(); ++i) call.options[i] = nb::cast<double>(options[i]);
  nb::gil_scoped_release release;
  function(call);
}

}  // namespace

const AttentionEntry& attention_entry(int map) {
  const int maps = chosen().attentions_count;
  if (map < 0 || map >= maps + chosen().studies_count)
    throw nb::value_error("map: expected a number that find_attention or find_study returned");
  return map < maps ? chosen().attentions[map] : chosen().studies[map - maps].attention;
}

void define_studies(nb::module_& m) {
  m.def("find_study", &find_study);
  m.def("study_rows", &study_rows);
}
