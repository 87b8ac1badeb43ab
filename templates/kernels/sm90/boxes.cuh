// Blocks of rows as boxes of a tensor.
#pragma once

#include "device/tensor_copy.cuh"
#include "kernels/mapped_attention_parameters.cuh"
#include "patterns/geometry.cuh"

namespace tilewright {

/// Whether the video's map is linear (mapped_attention_parameters.cuh).
constexpr bool linear_map = config::layout_tiled || config::dense;

/// One head of a tensor.
struct HeadBoxes {
  const TensorMap* video;
  const TensorMap* text;
  int head, batch;
  int column, outer; // of the canvas map

  TILEWRIGHT_DEVICE HeadBoxes(const TensorMap& video_map, const TensorMap& text_map, const HeadPlacement& placement,
                              int batch_, int head_)
      : video(&video_map), text(&text_map), head(head_), batch(batch_), column(head_ * placement.columns_per_head),
        outer(batch_ * placement.outer_per_batch + head_ * placement.outer_per_head) {}

  /// Where the box that begins with a tile's or the text's row stands.
  template <class Shape>
  TILEWRIGHT_DEVICE BoxOrigin origin(bool is_text, TileCoordinate tile, const TileRows<Shape>& rows, int row) const {
    if (is_text) {
      return {{0, row, head, batch, 0}};
    }
    if constexpr (linear_map) {
      return {{0, rows.token(row), head, batch, 0}};
    } else {
      return {{column, tile.w * Shape::w + row % Shape::w, tile.h * Shape::h + row / Shape::w % Shape::h,
               tile.t * Shape::t + row / (Shape::h * Shape::w), outer}};
    }
  }

  TILEWRIGHT_DEVICE const TensorMap& map(bool is_text) const { return config::text && is_text ? *text : *video; }
};

/// The same rows, so many columns further.
TILEWRIGHT_DEVICE BoxOrigin shifted(BoxOrigin origin, int columns) {
  origin.coordinate[0] += columns;
  return origin;
}

} // namespace tilewright
