// The operators as functions of tensors.
#pragma once

#include <nanobind/nanobind.h>

namespace tilewright::python {

void define_calls(nanobind::module_& module);

} // namespace tilewright::python
