// Tensors that own their host memory, dense and row-major: what files hold and commands work on.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include <tilewright/types.hpp>

namespace tilewright::tools {

/// The element types of .safetensors files that tilewright reads.
enum class ElementType : std::uint8_t { bf16, f16, f32, f64, i16, i32, i64, u8, boolean };

std::size_t size_of(ElementType type) noexcept;
/// As safetensors spells it: "BF16".
std::string_view to_string(ElementType type) noexcept;

struct HostTensor {
  ElementType type = ElementType::f32;
  std::vector<std::int64_t> shape;
  std::vector<std::byte> bytes; // shape's volume times the element's size

  template <typename Value> [[nodiscard]] std::span<const Value> as() const noexcept {
    return {reinterpret_cast<const Value*>(bytes.data()), bytes.size() / sizeof(Value)};
  }
  template <typename Value> [[nodiscard]] std::span<Value> as() noexcept {
    return {reinterpret_cast<Value*>(bytes.data()), bytes.size() / sizeof(Value)};
  }
};

/// Every byte is 0xFF: NaN in every floating point type, -1 in every integer one. So what is never written shows.
HostTensor make_poisoned(ElementType type, std::vector<std::int64_t> shape);

/// "[1, 12, 16, 16, 2, 64]"
std::string shape_text(std::span<const std::int64_t> shape);

/// A view of the whole tensor, of at most TensorView::max_rank dimensions. Throws invalid_argument, naming the tensor,
/// for types that kernels do not take.
TensorView view_of(HostTensor& tensor, std::string_view name);

/// Its elements as int32, from I16 and I32 (and I64 and U8 where the values fit). Throws invalid_argument with the
/// name.
std::vector<std::int32_t> to_int32(const HostTensor& tensor, std::string_view name);

} // namespace tilewright::tools
