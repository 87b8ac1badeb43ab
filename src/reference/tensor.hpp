// Attention's tensors on the host: four dimensions by name, whatever the layout and the strides.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include <tilewright/types.hpp>

namespace tilewright::reference {

/// A view of [batch, tokens, heads, head_dim] (raster) or [batch, heads, tokens, head_dim] (tiled), read or written
/// element by element. Strides in elements.
struct AttentionTensor {
  AttentionTensor(const TensorView& view, Layout layout) noexcept;

  std::uint16_t* data;
  DataType dtype; // bf16 or fp16
  std::int64_t batch, heads, tokens, head_dim;
  std::int64_t batch_stride, head_stride, token_stride, element_stride;

  [[nodiscard]] double read(std::int64_t b, std::int64_t head, std::int64_t token, std::int64_t element) const noexcept;
  void write(std::int64_t b, std::int64_t head, std::int64_t token, std::int64_t element, double value) const noexcept;
};

/// All of a bf16 or fp16 tensor, dense, in the order [batch, heads, tokens, head_dim]; and the way back, rounded once.
std::vector<double> read_tensor(const TensorView& view, Layout layout);
void write_tensor(const TensorView& view, Layout layout, std::span<const double> values);

/// The same for float32 [batch, heads, queries].
std::vector<double> read_lse(const TensorView& view);
void write_lse(const TensorView& view, std::span<const double> values);

} // namespace tilewright::reference
