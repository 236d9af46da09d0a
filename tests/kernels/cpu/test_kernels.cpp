// Row kernels: every map at lengths around the vector and the chunk, forwards and backwards, in memory that ends where the row
// ends.
#include <cmath>
#include <initializer_list>

#include "check.h"

using namespace manymax;

namespace {

template <class T>
RowsCall call_for(DType dtype, const Guarded<T>& x, Guarded<T>& y, int64_t n, int threads) {
  RowsCall call;
  call.dtype = dtype;
  call.x.data = x.data(), call.y.data = y.data();
  call.n = n, call.rows = call.sizes[0] = static_cast<int64_t>(x.size()) / n, call.dims = 1;
  call.x.strides[0] = call.grad.strides[0] = n;
  call.y.strides[0] = static_cast<int64_t>(y.size()) / call.rows;
  call.threads = threads;
  return call;
}

template <class T>
void check(const Kernels& kernels, const RowsEntry& map, DType dtype, int64_t n, int threads) {
  const int64_t rows = n > 100000 ? 1 : n < 300 ? 37 : 3;  // short ones come in blocks, the last of which is not full
  const bool reduces = std::strcmp(map.name, "logsumexp") == 0;
  Guarded<T> x(rows * n), g(rows * n), w(reduces ? rows : rows * n), dx(rows * n);
  for (size_t i = 0; i < x.size(); ++i) x[i] = static_cast<T>(std::sin(0.7 * i) * 3), g[i] = static_cast<T>(std::cos(i));
  RowsCall call = call_for<T>(dtype, x, w, n, threads);
  call.options[0] = std::strcmp(map.name, "sigmoid") == 0 ? NAN : 2;
  map.forward(call);
  double sum = 0;
  for (int64_t i = 0; i < (reduces ? 1 : n); ++i) sum += static_cast<double>(w[i]);
  expect(std::isfinite(sum), "%s %s n=%ld: a weight is not finite", kernels.isa, map.name, long{n});
  for (const char* one : {"softmax", "softplus", "stablemax", "sparsemax", "entmax15", "entmax", "taylor_softmax", "topk_softmax"})
    if (std::strcmp(map.name, one) == 0) expect(std::fabs(sum - 1) < 1e-5, "%s %s n=%ld: sum is not 1", kernels.isa, map.name, long{n});
  RowsCall back = call_for<T>(dtype, map.backward_reads_weights ? w : x, dx, n, threads);
  std::memcpy(back.options, call.options, sizeof back.options);
  back.grad.data = g.data();
  map.backward(back);
  for (T d : dx) expect(std::isfinite(static_cast<double>(d)), "%s %s n=%ld: a gradient is not finite", kernels.isa, map.name, long{n});
}

// bfloat16 and float16 share the row's bits; a mask, a stride and a temperature send the row through the buffers.
void check_staged(const Kernels& kernels, const RowsEntry& map, DType dtype, int64_t n) {
  Guarded<uint16_t> x(3 * n, 0x3c00), y(3 * n);
  Guarded<uint8_t> mask(n, 1);
  mask[n / 2] = n == 1;
  RowsCall call = call_for<uint16_t>(dtype, x, y, n, 1);
  call.rows = call.sizes[0] = 1;
  call.options[0] = 2, call.temperature = 1.5;
  call.x.step = 3, call.x.strides[0] = 1, call.y.step = 3, call.y.strides[0] = 1;
  call.mask.data = mask.data();
  map.forward(call);
  for (int64_t k = 0; k < n; ++k)
    expect(std::strcmp(map.name, "logsumexp") == 0 || y[3 * k + 1] == 0, "%s %s n=%ld: wrote between entries", kernels.isa, map.name, long{n});
}

void check_rows(const Kernels& kernels) {
  for (int m = 0; m < kernels.rows_count; ++m) {
    const RowsEntry& map = kernels.rows[m];
    for (int64_t n : {1, 2, 3, 7, 8, 9, 15, 16, 17, 31, 32, 33, 63, 64, 65, 4095, 4096, 4097, 9001, 270001}) {
      check<float>(kernels, map, DType::f32, n, n > 100000 ? 2 : 1);
      check<double>(kernels, map, DType::f64, n, 1);
      check_staged(kernels, map, DType::bf16, n), check_staged(kernels, map, DType::f16, n);
    }
  }
}

const Check rows("rows", check_rows);

}  // namespace
