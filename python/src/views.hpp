// From Python's values to the library's.
#pragma once

#include <cstddef>
#include <optional>

#include <nanobind/nanobind.h>

#include <tilewright/types.hpp>

namespace tilewright::python {

/// One of python/tilewright/layouts.py: what the library calls it, and whether heads and tokens change places for that.
struct TensorLayout {
  Layout layout;
  bool swapped;
};
/// code: bit 0 says that tokens are grouped by tile, bit 1 that heads come before tokens.
TensorLayout layout_from(int code);

/// A torch.Tensor, read through its attributes (libtorch is not linked), or (address, dtype name, shape, strides in
/// elements), so that any library's tensors fit.
TensorView view_from(nanobind::handle tensor);
std::optional<TensorView> optional_view_from(nanobind::handle tensor);
/// The same of q, k, v or out, their dimensions in the library's order. No data moves.
TensorView attention_view(nanobind::handle tensor, TensorLayout layout);
std::optional<TensorView> optional_attention_view(nanobind::handle tensor, TensorLayout layout);

/// A tuple of three integers, (t, h, w).
Extent3 extent_from(nanobind::handle extent);
std::optional<Extent3> optional_extent_from(nanobind::handle extent);

/// Device memory that Python's allocator made, kept by reference while this value lives.
class Workspace {
public:
  /// allocate: a callable of a number of bytes that returns (address, owner). Not called for 0 bytes.
  Workspace(nanobind::handle allocate, std::size_t bytes);
  /// What an earlier call's allocate returned; none: no memory.
  explicit Workspace(nanobind::object memory);

  [[nodiscard]] void* data() const noexcept { return data_; } // aligned as every operator wants it

private:
  nanobind::object memory_;
  void* data_ = nullptr;
};

} // namespace tilewright::python
