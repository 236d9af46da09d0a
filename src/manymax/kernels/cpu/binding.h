// What the parts of the Python module share.
#pragma once

#include <nanobind/nanobind.h>

#include <cstring>

#include "dispatch.h"

// The kernels of the instruction set that `choose` selected.
const manymax::Kernels& chosen();

// What forward, backward and decode of the map numbered `map` are; behind the maps come the studies.
const manymax::AttentionEntry& attention_entry(int map);

// The integer at a place of a tuple, and (address, strides of batch, head and token) or None.
int64_t integer(nanobind::handle tuple, size_t i);
manymax::Tokens tokens(nanobind::handle x);

void define_attention(nanobind::module_& m);
void define_heads(nanobind::module_& m);
void define_linear(nanobind::module_& m);
void define_studies(nanobind::module_& m);
