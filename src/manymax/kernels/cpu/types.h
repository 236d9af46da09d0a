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

inline constexpr int kMaxAdditions = 2;

// A tensor (batch, heads, tokens, dim); the last stride is 1.
struct Tokens {
  const void* data = nullptr;
  int64_t batch = 0, head = 0, token = 0;  // strides
};

// A tensor that broadcasts to the scores (batch, query heads, queries, keys); a stride is 0 where it is broadcast.
struct OnScores {
  const void* data = nullptr;
  DType dtype = DType::f32;
  int64_t batch = 0, head = 0, query = 0, key = 0;  // strides
};

// One attention call, forwards or backwards; a null pointer is an argument that was not given.
struct AttentionCall {
  DType dtype = DType::f32;  // of query, key, value, out and their gradients: f32, bf16 or f16
  int64_t batch = 0, query_heads = 0, key_heads = 0, queries = 0, keys = 0, dim = 0, value_dim = 0;
  Tokens query, key, value, out;
  Tokens d_out, d_query, d_key, d_value;  // backward only
  OnScores mask;                          // bool, 1 = keep
  OnScores additions[kMaxAdditions];      // added to the scores; f32, bf16 or f16
  float* d_additions[kMaxAdditions] = {};  // float32, the addition's shape, contiguous, zeros on entry
  const float* sinks = nullptr;            // (query heads,)
  float* d_sinks = nullptr;                // (batch, query heads), written
  float* stats = nullptr;                  // (2, batch, query heads, queries): written forwards, read backwards
  float* lse = nullptr;                    // (batch, query heads, queries): written forwards, of ratio maps
  const float* d_lse = nullptr;            // the same shape; backward only
  int64_t low = 0, high = 0;               // query i sees key j where low <= j - i <= high
  double scale = 1, softcap = 0, temperature = 1;  // softcap 0: none
  double dropout = 0;
  uint64_t seed = 0;
  double options[kMaxOptions] = {};
  int threads = 1;
};

using AttentionFunction = void (*)(const AttentionCall&);

// One map's attention.
struct AttentionEntry {
  const char* name;
  AttentionFunction forward;
  AttentionFunction backward;
  AttentionFunction decode;  // forwards alone, for few queries
};

// One call of the recurrence S_t = a_t S_{t-1} + k_t v_t^T, or of the delta rule, and of its outputs S_t^T q_t. Query head h reads
// key head h / (query_heads / key_heads) and has a state of its own. States are float32 (batch, query heads, dim, value_dim),
// contiguous. A null pointer is an argument that was not given, or a gradient that nobody asks for.
struct LinearCall {
  DType dtype = DType::f32;  // of query, key, value, out and their gradients: f32, bf16 or f16
  int64_t batch = 0, query_heads = 0, key_heads = 0, tokens = 0, dim = 0, value_dim = 0;
  int64_t chunk = 0;                      // tokens; 0: the kernel's choice
  Tokens query, key, value, out;
  Tokens d_out, d_query, d_key, d_value;  // backward only; those of key and value have a head for each of the query
  Tokens log_decay, beta;                 // float32; strides may be 0
  bool channels = false;                  // whether log_decay has an entry for each row of the state
  float* d_log_decay = nullptr;           // (batch, query heads, tokens), with `channels` by dim
  float* d_beta = nullptr;                // (batch, query heads, tokens)
  const float *initial_state = nullptr, *d_final_state = nullptr;
  float *final_state = nullptr, *d_initial_state = nullptr;
  int threads = 1;
};

using LinearFunction = void (*)(const LinearCall&);

// The recurrence over chunks of tokens and back, and token by token.
struct LinearEntry {
  LinearFunction forward;
  LinearFunction backward;
  LinearFunction step;
};

// One call of the cross-entropy of a linear map's scores, rows (classes, dim) times input (tokens, dim); see heads/README.md. A null
// pointer is an argument that was not given, or a result that nobody asks for.
struct LossCall {
  DType dtype = DType::f32;  // of input, rows and d_input: f32, bf16 or f16
  int64_t tokens = 0, classes = 0, dim = 0;
  const void *input = nullptr, *rows = nullptr;
  int64_t input_step = 0, rows_step = 0;      // entries between two tokens and two classes; within one they lie side by side
  const float *bias = nullptr, *weight = nullptr;  // (classes,)
  const int64_t* target = nullptr;            // (tokens,); below 0 for none
  const float* probabilities = nullptr;       // (tokens, classes), contiguous, in the place of targets
  double smoothing = 0, softcap = 0, penalty = 0;  // softcap 0: none
  double skip = 0;  // a block of classes adds nothing if its scores' gradients, each over its token's, are all below it
  float *losses = nullptr, *lse = nullptr;    // (tokens,), written
  const float *d_losses = nullptr, *d_lse = nullptr;  // (tokens,); without d_losses there are no gradients
  void* d_input = nullptr;                    // (tokens, dim), contiguous, written
  float *d_rows = nullptr, *d_bias = nullptr;  // (classes, dim) and (classes,), contiguous, written
  void* narrow_rows = nullptr;                // d_rows rounded to `dtype`, written if given; d_rows is then the room for its sums
  int64_t chunk = 0;                          // tokens whose scores exist at once; 0: the kernel's choice
  int threads = 1;
};

using LossFunction = void (*)(const LossCall&);

// Runs attention's product loop on operands in cache; returns the floating-point operations that it did.
using PeakFunction = double (*)(DType dtype, int threads, int64_t repeats);

// A kernel that a claim measures and nothing else calls: of rows, or of attention.
struct Study {
  const char* name;
  RowsFunction rows;
  AttentionEntry attention;
};

// Everything that one instruction set offers.
struct Kernels {
  const char* isa;
  const RowsEntry* rows;
  int rows_count;
  const AttentionEntry* attentions;
  int attentions_count;
  LinearEntry linear;
  LossFunction loss;
  PeakFunction peak;
  const Study* studies;
  int studies_count;
};

}  // namespace manymax
