// What crosses the border between the binding and the kernels: plain structs, the same for every instruction set.
#pragma once

#include <cstdint>

namespace manymax {

enum class DType : int { f32 = 0, f64 = 1, bf16 = 2, f16 = 3 };

inline constexpr int kMaxDims = 8;
inline constexpr int kMaxOptions = 4;

// Pointers of one call on rows. Strides are in elements; row r has coordinates over `sizes`, last dim fastest.
struct Operand {
  const void* data = nullptr;
  int64_t step = 1;  // from one entry of a row to the next
  int64_t strides[kMaxDims] = {};
};

struct RowsCall {
  Operand x;     // scores, or the weights when a backward reads those
  Operand grad;  // gradient of the output; backward only
  Operand mask;  // bool, 1 = keep; data is null without a mask
  Operand y;     // written
  DType dtype = DType::f32;
  int dims = 0;                  // of the rows' grid
  int64_t sizes[kMaxDims] = {};  // of the rows' grid
  int64_t rows = 0;              // product of sizes
  int64_t n = 0;                 // entries of a row
  double temperature = 1;
  double options[kMaxOptions] = {};
  int threads = 1;
};

using RowsFunction = void (*)(const RowsCall&);

// One map's kernels. A null backward means that there is none.
struct RowsEntry {
  const char* name;
  RowsFunction forward;
  RowsFunction backward;
  bool backward_reads_weights;  // else it reads the scores
};

// Everything that one instruction set offers.
struct Kernels {
  const char* isa;
  const RowsEntry* rows;
  int rows_count;
};

}  // namespace manymax
