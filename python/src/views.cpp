#include "views.hpp"

#include <array>
#include <string_view>
#include <utility>

#include <fmt/format.h>

#include <tilewright/error.hpp>

namespace nb = nanobind;

namespace tilewright::python {
namespace {

DataType dtype_from(std::string_view name) {
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

} // namespace

TensorView view_from(nb::handle tensor) {
  const auto parts = nb::cast<nb::tuple>(tensor);
  const auto shape = nb::cast<nb::tuple>(parts[2]);
  const auto strides = nb::cast<nb::tuple>(parts[3]);
  TensorView view;
  view.data = reinterpret_cast<void*>(nb::cast<std::uintptr_t>(parts[0]));
  view.dtype = dtype_from(nb::cast<const char*>(parts[1]));
  view.rank = static_cast<int>(shape.size());
  if (view.rank > TensorView::max_rank)
    throw Error(ErrorCode::invalid_argument, fmt::format("a tensor has {} dimensions", view.rank),
                fmt::format("at most {}", TensorView::max_rank), "reshape it");
  for (int i = 0; i < view.rank; ++i) {
    view.extents[static_cast<std::size_t>(i)] = nb::cast<std::int64_t>(shape[i]);
    view.strides[static_cast<std::size_t>(i)] = nb::cast<std::int64_t>(strides[i]);
  }
  return view;
}

std::optional<TensorView> optional_view_from(nb::handle tensor) {
  return tensor.is_none() ? std::nullopt : std::optional(view_from(tensor));
}

Extent3 extent_from(nb::handle extent) {
  const auto parts = nb::cast<nb::tuple>(extent);
  return {nb::cast<std::int32_t>(parts[0]), nb::cast<std::int32_t>(parts[1]), nb::cast<std::int32_t>(parts[2])};
}

} // namespace tilewright::python
