// Which tile a token belongs to, and how many valid tokens a tile has.
#pragma once

#include <cstdint>
#include <optional>

#include "problem/relation.hpp"
#include <tilewright/types.hpp>

namespace tilewright::reference {

/// Valid tokens of a tile where an array gives them, else what the canvas says.
inline std::int64_t valid_rows(const std::optional<TensorView>& sizes, std::int64_t batch, std::int64_t tile,
                               std::int64_t of_canvas) {
  if (!sizes)
    return of_canvas;
  const auto* data = static_cast<const std::int32_t*>(sizes->data);
  if (sizes->rank == 1)
    return data[tile * sizes->strides[0]];
  return data[(sizes->extents[0] == 1 ? 0 : batch * sizes->strides[0]) + tile * sizes->strides[1]];
}

/// The tile of a tensor's row; none for padding.
inline std::optional<std::int64_t> tile_of(const problem::Tiling& tiling, Layout layout,
                                           const std::optional<TensorView>& sizes, std::int64_t batch,
                                           std::int64_t row) {
  if (sizes) {
    const std::int64_t volume = tiling.tile().volume();
    return row % volume < valid_rows(sizes, batch, row / volume, 0) ? std::optional(row / volume) : std::nullopt;
  }
  const auto coordinate = tiling.coordinate_of(row, layout);
  return coordinate ? std::optional<std::int64_t>(tiling.tile_row_of(*coordinate, layout).tile) : std::nullopt;
}

} // namespace tilewright::reference
