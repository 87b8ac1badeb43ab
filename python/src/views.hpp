// From Python's values to the library's.
#pragma once

#include <optional>

#include <nanobind/nanobind.h>

#include <tilewright/types.hpp>

namespace tilewright::python {

/// (address, dtype name, shape, strides in elements): what a tensor is to this module. Any library's tensors fit.
TensorView view_from(nanobind::handle tensor);
std::optional<TensorView> optional_view_from(nanobind::handle tensor);

/// A tuple of three integers, (t, h, w).
Extent3 extent_from(nanobind::handle extent);

} // namespace tilewright::python
