#include "views.hpp"

#include <array>
#include <string_view>
#include <unordered_map>
#include <utility>

#include <fmt/format.h>

#include <tilewright/error.hpp>

namespace nb = nanobind;

namespace tilewright::python {
namespace {

constexpr std::uintptr_t workspace_alignment = 256;

DataType dtype_from_name(std::string_view name) {
  constexpr std::array<std::pair<std::string_view, DataType>, 6> names{{{"bfloat16", DataType::bf16},
                                                                        {"float16", DataType::fp16},
                                                                        {"float32", DataType::float32},
                                                                        {"int32", DataType::int32},
                                                                        {"bool", DataType::boolean},
                                                                        {"bool_", DataType::boolean}}};
  for (const auto& [known, type] : names)
    if (name == known)
      return type;
  throw Error(ErrorCode::invalid_argument, fmt::format("a tensor has dtype {}", name),
              "bfloat16 or float16 for q, k, v and out; float32 for lse; int32 for lists and sizes", "convert it");
}

/// Of a torch.dtype, one object for each type as long as PyTorch is loaded.
DataType dtype_from_torch(nb::handle dtype) {
  static std::unordered_map<PyObject*, DataType> known; // Python's lock is held
  if (const auto found = known.find(dtype.ptr()); found != known.end())
    return found->second;
  const nb::str text(dtype);
  std::string_view name = text.c_str();
  constexpr std::string_view prefix = "torch.";
  if (name.starts_with(prefix))
    name.remove_prefix(prefix.size());
  const DataType type = dtype_from_name(name);
  dtype.inc_ref(); // its address stays its own
  known.emplace(dtype.ptr(), type);
  return type;
}

/// Attribute names as Python compares them fastest. Never freed: the interpreter may end first.
struct Names {
  nb::object data_ptr = interned("data_ptr"), dtype = interned("dtype"), shape = interned("shape"),
             stride = interned("stride");

  static nb::object interned(const char* name) { return nb::steal(PyUnicode_InternFromString(name)); }
  static const Names& get() {
    static const Names* const made = new Names;
    return *made;
  }
};

void set_extents(TensorView& view, nb::handle shape, nb::handle strides) {
  const auto extents = nb::cast<nb::tuple>(shape), steps = nb::cast<nb::tuple>(strides);
  view.rank = static_cast<int>(extents.size());
  if (view.rank > TensorView::max_rank)
    throw Error(ErrorCode::invalid_argument, fmt::format("a tensor has {} dimensions", view.rank),
                fmt::format("at most {}", TensorView::max_rank), "reshape it");
  for (std::size_t i = 0; i < extents.size(); ++i) {
    view.extents[i] = nb::cast<std::int64_t>(extents[i]);
    view.strides[i] = nb::cast<std::int64_t>(steps[i]);
  }
}

void* address_of(nb::handle tensor) {
  return reinterpret_cast<void*>(nb::cast<std::uintptr_t>(tensor.attr(Names::get().data_ptr)()));
}

} // namespace

TensorLayout layout_from(int code) {
  const bool tiled = (code & 1) != 0, heads_first = (code & 2) != 0;
  return {tiled ? Layout::tiled : Layout::raster, tiled != heads_first};
}

TensorView view_from(nb::handle tensor) {
  TensorView view;
  if (PyTuple_Check(tensor.ptr())) {
    const auto parts = nb::borrow<nb::tuple>(tensor);
    view.data = reinterpret_cast<void*>(nb::cast<std::uintptr_t>(parts[0]));
    view.dtype = dtype_from_name(nb::cast<const char*>(parts[1]));
    set_extents(view, parts[2], parts[3]);
    return view;
  }
  const Names& names = Names::get();
  view.dtype = dtype_from_torch(nb::object(tensor.attr(names.dtype)));
  set_extents(view, nb::object(tensor.attr(names.shape)), tensor.attr(names.stride)());
  view.data = address_of(tensor);
  return view;
}

std::optional<TensorView> optional_view_from(nb::handle tensor) {
  return tensor.is_none() ? std::nullopt : std::optional(view_from(tensor));
}

TensorView attention_view(nb::handle tensor, TensorLayout layout) {
  TensorView view = view_from(tensor);
  if (layout.swapped && view.rank == 4) {
    std::swap(view.extents[1], view.extents[2]);
    std::swap(view.strides[1], view.strides[2]);
  }
  return view;
}

std::optional<TensorView> optional_attention_view(nb::handle tensor, TensorLayout layout) {
  return tensor.is_none() ? std::nullopt : std::optional(attention_view(tensor, layout));
}

Extent3 extent_from(nb::handle extent) {
  const auto parts = nb::cast<nb::tuple>(extent);
  return {nb::cast<std::int32_t>(parts[0]), nb::cast<std::int32_t>(parts[1]), nb::cast<std::int32_t>(parts[2])};
}

std::optional<Extent3> optional_extent_from(nb::handle extent) {
  return extent.is_none() ? std::nullopt : std::optional(extent_from(extent));
}

Workspace::Workspace(nb::handle allocate, std::size_t bytes)
    : Workspace(bytes == 0 ? nb::object(nb::none()) : nb::object(allocate(bytes + workspace_alignment))) {}

Workspace::Workspace(nb::object memory) : memory_(std::move(memory)) {
  if (memory_.is_none())
    return;
  const auto address = nb::cast<std::uintptr_t>(nb::borrow<nb::tuple>(memory_)[0]);
  data_ = reinterpret_cast<void*>((address + workspace_alignment - 1) / workspace_alignment * workspace_alignment);
}

} // namespace tilewright::python
