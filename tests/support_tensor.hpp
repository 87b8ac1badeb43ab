// Host tensors for tests: guarded, poisoned, with gaps between rows where asked.
#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <initializer_list>
#include <optional>
#include <vector>

#include "reference/convert.hpp"
#include <tilewright/types.hpp>

namespace tilewright::testing {

/// Memory of one tensor between two guard zones. Everything starts as poison: each 16 bits a NaN of bf16 and of fp16,
/// each 32 bits a NaN of float32 and an int32 out of every range. Element-wise, so meant for small tensors.
class HostTensor {
public:
  static constexpr std::uint16_t poison = 0x7fc1;
  static constexpr std::size_t guard_bytes = 256; // keeps the data aligned for the widest copies

  /// Strides in elements, dense where none are given. The view's memory starts guard_bytes into the allocation.
  HostTensor(DataType dtype, std::initializer_list<std::int64_t> extents, std::vector<std::int64_t> strides = {})
      : view_(TensorView::contiguous(nullptr, dtype, extents)) {
    std::copy(strides.begin(), strides.end(), view_.strides.begin());
    std::int64_t last = 0;
    for (std::size_t axis = 0; axis < extents.size(); ++axis)
      last += std::max<std::int64_t>(view_.extents[axis] - 1, 0) * view_.strides[axis];
    const std::size_t bytes = static_cast<std::size_t>(last + 1) * size_of(dtype);
    words_.assign((2 * guard_bytes + (bytes + guard_bytes - 1) / guard_bytes * guard_bytes) / sizeof(poison) +
                      alignment / sizeof(poison),
                  poison);
    const auto address = reinterpret_cast<std::uintptr_t>(words_.data());
    first_byte_ = (alignment - address % alignment) % alignment;
    view_.data = allocation() + guard_bytes;
  }
  HostTensor(HostTensor&&) noexcept = default;
  HostTensor& operator=(HostTensor&&) noexcept = default;
  HostTensor(const HostTensor&) = delete;
  HostTensor& operator=(const HostTensor&) = delete;

  [[nodiscard]] const TensorView& view() const noexcept { return view_; }

  /// Data, gaps and guards: what a test on a GPU copies there and back.
  [[nodiscard]] const std::byte* allocation() const noexcept {
    return reinterpret_cast<const std::byte*>(words_.data()) + first_byte_;
  }
  [[nodiscard]] std::byte* allocation() noexcept { return reinterpret_cast<std::byte*>(words_.data()) + first_byte_; }
  [[nodiscard]] std::size_t allocation_bytes() const noexcept { return words_.size() * sizeof(poison) - alignment; }

  /// Sets every element from its four indices (0 beyond the rank); where there is no value, it stays as it is.
  template <typename Value> void fill(Value value) {
    for_each([&](const std::array<std::int64_t, 4>& index, std::byte* element) {
      const std::optional<double> number = value(index[0], index[1], index[2], index[3]);
      if (number)
        store(element, *number);
    });
  }

  void poison_all() { std::fill(words_.begin(), words_.end(), poison); }

  /// Elements of the view that still hold the poison.
  [[nodiscard]] std::size_t unwritten() {
    std::size_t count = 0;
    for_each([&](const auto&, std::byte* element) { count += is_poison(element, size_of(view_.dtype)) ? 1 : 0; });
    return count;
  }

  /// Bytes of the guards and gaps that no longer hold the poison.
  [[nodiscard]] std::size_t damaged_bytes() {
    std::vector<bool> owned(allocation_bytes(), false);
    for_each([&](const auto&, std::byte* element) {
      const auto first = owned.begin() + (element - allocation());
      std::fill(first, first + static_cast<std::ptrdiff_t>(size_of(view_.dtype)), true);
    });
    std::size_t count = 0;
    for (std::size_t byte = 0; byte < owned.size(); byte += sizeof(poison))
      count += !owned[byte] && !is_poison(allocation() + byte, sizeof(poison)) ? sizeof(poison) : 0;
    return count;
  }

private:
  static constexpr std::size_t alignment = 128;

  static bool is_poison(const std::byte* element, std::size_t bytes) {
    for (std::size_t byte = 0; byte < bytes; byte += sizeof(poison))
      if (std::memcmp(element + byte, &poison, sizeof(poison)) != 0)
        return false;
    return true;
  }

  void store(std::byte* element, double value) const {
    const auto copy = [&](auto number) { std::memcpy(element, &number, sizeof(number)); };
    if (view_.dtype == DataType::int32)
      copy(static_cast<std::int32_t>(value));
    else if (view_.dtype == DataType::float32)
      copy(static_cast<float>(value));
    else
      copy(reference::encode(view_.dtype, value));
  }

  template <typename Visit> void for_each(Visit visit) {
    const auto extent = [&](int axis) { return axis < view_.rank ? view_.extents[static_cast<std::size_t>(axis)] : 1; };
    std::array<std::int64_t, 4> i{};
    for (i[0] = 0; i[0] < extent(0); ++i[0])
      for (i[1] = 0; i[1] < extent(1); ++i[1])
        for (i[2] = 0; i[2] < extent(2); ++i[2])
          for (i[3] = 0; i[3] < extent(3); ++i[3]) {
            std::int64_t offset = 0;
            for (std::size_t axis = 0; axis < 4; ++axis)
              offset += i[axis] * view_.strides[axis];
            visit(i, static_cast<std::byte*>(view_.data) + offset * static_cast<std::int64_t>(size_of(view_.dtype)));
          }
  }

  TensorView view_;
  std::vector<std::uint16_t> words_;
  std::size_t first_byte_ = 0;
};

} // namespace tilewright::testing
