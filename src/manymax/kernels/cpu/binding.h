// What the parts of the Python module share.
#pragma once

#include <nanobind/nanobind.h>

#include <cstring>

#include "dispatch.h"

// The kernels of the instruction set that `choose` selected.
const manymax::Kernels& chosen();

void define_attention(nanobind::module_& m);
