#include "host_tensor.hpp"

#include <functional>
#include <limits>
#include <numeric>

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <tilewright/error.hpp>

namespace tilewright::tools {
namespace {

template <typename Value> std::vector<std::int32_t> narrow(std::span<const Value> values, std::string_view name) {
  std::vector<std::int32_t> result;
  result.reserve(values.size());
  for (const Value value : values) {
    if (static_cast<std::int64_t>(value) != static_cast<std::int32_t>(value))
      throw Error(ErrorCode::invalid_argument, fmt::format("{} holds the value {}", name, value),
                  fmt::format("values up to {} are allowed", std::numeric_limits<std::int32_t>::max()),
                  fmt::format("correct {}", name));
    result.push_back(static_cast<std::int32_t>(value));
  }
  return result;
}

DataType kernel_type(ElementType type, std::string_view name) {
  switch (type) {
  case ElementType::bf16:
    return DataType::bf16;
  case ElementType::f16:
    return DataType::fp16;
  case ElementType::f32:
    return DataType::float32;
  case ElementType::i32:
    return DataType::int32;
  case ElementType::boolean:
    return DataType::boolean;
  default:
    throw Error(ErrorCode::invalid_argument, fmt::format("{} is of type {}", name, to_string(type)),
                "BF16 and F16 are allowed for attention's tensors", fmt::format("convert {} to BF16", name));
  }
}

} // namespace

std::size_t size_of(ElementType type) noexcept {
  switch (type) {
  case ElementType::bf16:
  case ElementType::f16:
  case ElementType::i16:
    return 2;
  case ElementType::f32:
  case ElementType::i32:
    return 4;
  case ElementType::f64:
  case ElementType::i64:
    return 8;
  case ElementType::u8:
  case ElementType::boolean:
    return 1;
  }
  return 0;
}

std::string_view to_string(ElementType type) noexcept {
  switch (type) {
  case ElementType::bf16:
    return "BF16";
  case ElementType::f16:
    return "F16";
  case ElementType::f32:
    return "F32";
  case ElementType::f64:
    return "F64";
  case ElementType::i16:
    return "I16";
  case ElementType::i32:
    return "I32";
  case ElementType::i64:
    return "I64";
  case ElementType::u8:
    return "U8";
  case ElementType::boolean:
    return "BOOL";
  }
  return "unknown";
}

HostTensor make_poisoned(ElementType type, std::vector<std::int64_t> shape) {
  const auto volume = std::accumulate(shape.begin(), shape.end(), std::int64_t{1}, std::multiplies<>());
  HostTensor tensor{type, std::move(shape), {}};
  tensor.bytes.assign(static_cast<std::size_t>(volume) * size_of(type), std::byte{0xFF});
  return tensor;
}

std::string shape_text(std::span<const std::int64_t> shape) { return fmt::format("[{}]", fmt::join(shape, ", ")); }

TensorView view_of(HostTensor& tensor, std::string_view name) {
  TensorView view;
  view.data = tensor.bytes.data();
  view.dtype = kernel_type(tensor.type, name);
  if (tensor.shape.size() > TensorView::max_rank)
    throw Error(ErrorCode::internal, fmt::format("{} has the shape {}", name, shape_text(tensor.shape)),
                fmt::format("at most {} dimensions fit a view", TensorView::max_rank),
                "report this as a fault of tilewright");
  view.rank = static_cast<int>(tensor.shape.size());
  std::int64_t stride = 1;
  for (std::size_t axis = tensor.shape.size(); axis-- > 0; stride *= tensor.shape[axis]) {
    view.extents[axis] = tensor.shape[axis];
    view.strides[axis] = stride;
  }
  return view;
}

std::vector<std::int32_t> to_int32(const HostTensor& tensor, std::string_view name) {
  switch (tensor.type) {
  case ElementType::i16:
    return narrow(tensor.as<std::int16_t>(), name);
  case ElementType::i32:
    return narrow(tensor.as<std::int32_t>(), name);
  case ElementType::i64:
    return narrow(tensor.as<std::int64_t>(), name);
  case ElementType::u8:
    return narrow(tensor.as<std::uint8_t>(), name);
  default:
    throw Error(ErrorCode::invalid_argument, fmt::format("{} is of type {}", name, to_string(tensor.type)),
                "I16, I32, I64 and U8 are allowed", fmt::format("store {} as I32", name));
  }
}

} // namespace tilewright::tools
