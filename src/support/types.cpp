#include <tilewright/types.hpp>

#include <limits>

#include <fmt/format.h>

#include "support/text.hpp"
#include <tilewright/error.hpp>

namespace tilewright {

std::size_t size_of(DataType type) noexcept {
  switch (type) {
  case DataType::bf16:
  case DataType::fp16:
    return 2;
  case DataType::float32:
  case DataType::int32:
    return 4;
  case DataType::boolean:
    return 1;
  }
  return 0;
}

std::string_view to_string(DataType type) noexcept {
  switch (type) {
  case DataType::bf16:
    return "bf16";
  case DataType::fp16:
    return "fp16";
  case DataType::float32:
    return "float32";
  case DataType::int32:
    return "int32";
  case DataType::boolean:
    return "boolean";
  }
  return "unknown";
}

std::string_view to_string(Layout layout) noexcept {
  switch (layout) {
  case Layout::raster:
    return "raster";
  case Layout::tiled:
    return "tiled";
  }
  return "unknown";
}

std::string to_string(const Extent3& extent) { return fmt::format("{}x{}x{}", extent.t, extent.h, extent.w); }

Extent3 parse_extent3(std::string_view text) {
  const auto parts = support::split(text, 'x');
  if (parts.size() != 3)
    throw Error(ErrorCode::invalid_argument, fmt::format("the extents are '{}'", text),
                "three positive integers joined by x are allowed, in (t, h, w) order",
                "write them as in 6x8x8; put 1x in front for fewer dimensions");
  const auto extent = [&](std::size_t axis) {
    return static_cast<std::int32_t>(support::parse_integer(parts[axis], fmt::format("extent {} of '{}'", axis, text),
                                                            1, std::numeric_limits<std::int32_t>::max()));
  };
  return {extent(0), extent(1), extent(2)};
}

TensorView TensorView::contiguous(void* data, DataType dtype, std::initializer_list<std::int64_t> extents) {
  if (extents.size() > max_rank)
    throw Error(ErrorCode::invalid_argument, fmt::format("a tensor of rank {} was asked for", extents.size()),
                fmt::format("ranks from 0 to {} are allowed", max_rank), "merge dimensions that lie side by side");
  TensorView view{.data = data, .dtype = dtype, .rank = static_cast<int>(extents.size())};
  std::size_t axis = 0;
  for (const std::int64_t extent : extents) {
    if (extent < 0)
      throw Error(ErrorCode::invalid_argument, fmt::format("extent {} of a tensor is {}", axis, extent),
                  "extents of 0 and above are allowed", "correct the extent");
    view.extents[axis++] = extent;
  }
  std::int64_t stride = 1;
  while (axis-- > 0) {
    view.strides[axis] = stride;
    if (__builtin_mul_overflow(stride, view.extents[axis], &stride))
      throw Error(ErrorCode::invalid_argument, "the product of a tensor's extents does not fit 64 bits",
                  "a dense tensor's elements must be countable by a signed 64-bit integer", "correct the extents");
  }
  return view;
}

std::string to_string(const Architecture& architecture) {
  return fmt::format("sm_{}{}{}", architecture.major, architecture.minor,
                     architecture.suffix == 0 ? std::string_view{} : std::string_view(&architecture.suffix, 1));
}

Architecture parse_architecture(std::string_view text) {
  const auto refuse = [&]() -> Error {
    return {ErrorCode::invalid_argument, fmt::format("the architecture is '{}'", text),
            "sm_ with two or three digits and at most one suffix, a or f, is allowed",
            "write it as NVRTC does, for example sm_80, sm_90a or sm_120"};
  };
  constexpr std::string_view prefix = "sm_";
  if (!text.starts_with(prefix))
    throw refuse();
  std::string_view digits = text.substr(prefix.size());
  Architecture architecture;
  if (!digits.empty() && (digits.back() == 'a' || digits.back() == 'f')) {
    architecture.suffix = digits.back();
    digits.remove_suffix(1);
  }
  if (digits.size() < 2 || digits.size() > 3 || digits.find_first_not_of("0123456789") != std::string_view::npos ||
      digits.front() == '0')
    throw refuse();
  constexpr int minors_per_major = 10;
  const auto number = support::parse_integer(digits, "the architecture", minors_per_major, 999);
  architecture.major = static_cast<std::uint8_t>(number / minors_per_major);
  architecture.minor = static_cast<std::uint8_t>(number % minors_per_major);
  return architecture;
}

} // namespace tilewright
