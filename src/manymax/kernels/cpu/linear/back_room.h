// Backwards: one thread's memory beside what it needs forwards.
#pragma once

#include "room.h"

namespace manymax::MANYMAX_ISA {

struct BackRoom : Room {
  Matrix d_out, d_query, d_key, d_values;
  Matrix values_across, state_across, d_state_across;  // transposed
  Matrix d_state;
  Matrix d_weights, pairs;    // gradients of scores; these times the scores, from which the gradient of log_decay comes
  Matrix through_state;       // gradients of queries by way of the state
  Matrix near_gradient;       // per channel: gradients relative to a sub-chunk's start
  Matrix read, kept;          // gradients of log_decay from outputs that read the state and from keys that it keeps
  float* through;             // and from what goes through the whole chunk
  float* columns;             // scratch of `sum_passing`

  BackRoom(Carver& carver, const LinearCall& call, const LinearSizes& z)
      : Room(carver, call, z),
        d_out(carver.take(z.chunk, z.value_width)),
        d_query(carver.take(z.chunk, z.key_width)),
        d_key(carver.take(z.chunk, z.key_width)),
        d_values(carver.take(z.chunk, z.value_width)),
        values_across(carver.take(z.value_width, z.chunk)),
        state_across(carver.take(z.value_width, z.key_width)),
        d_state_across(carver.take(z.value_width, z.key_width)),
        d_state(carver.take(z.state_rows, z.value_width)),
        d_weights(carver.take(z.chunk + kLane, z.chunk)),
        pairs(carver.take(z.chunk, z.chunk)),
        through_state(carver.take(z.chunk, z.key_width)),
        near_gradient(carver.take(call.channels ? z.chunk + kLane : 0, z.key_width)),
        read(carver.take(z.chunk, call.channels ? z.key_width : 1)),
        kept(carver.take(z.chunk, call.channels ? z.key_width : 1)),
        through(carver.take(z.key_width)),
        columns(carver.take(z.chunk)) {}
};

}  // namespace manymax::MANYMAX_ISA
