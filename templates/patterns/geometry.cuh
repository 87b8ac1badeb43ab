// Tiles of a canvas as rows of a tensor: which token each row is, and whether it exists.
#pragma once

#include "config.cuh"
#include "device/copy.cuh"
#include "device/thread.cuh"
#include "kernels/attention_parameters.cuh"

namespace tilewright {

constexpr int no_limit = 0x7fffffff;

template <int t_, int h_, int w_> struct TileShape {
  static constexpr int t = t_, h = h_, w = w_;
  static constexpr int tokens = t * h * w;
};

using QueryTile = TileShape<config::tile_t, config::tile_h, config::tile_w>;
using KeyTile = TileShape<config::key_tile_t, config::key_tile_h, config::key_tile_w>;

struct TileCoordinate {
  int t, h, w;
};

TILEWRIGHT_DEVICE TileCoordinate tile_coordinate(const TokenGrid& grid, int tile) {
  const int plane = tile / grid.tiles_w;
  return {plane / grid.tiles_h, plane % grid.tiles_h, tile % grid.tiles_w};
}

TILEWRIGHT_DEVICE int minimum(int a, int b) { return a < b ? a : b; }
TILEWRIGHT_DEVICE int maximum(int a, int b) { return a > b ? a : b; }

/// The rows of one tile, or of the text, in (t, h, w) order. In the raster layout a clipped tile's rows are those of
/// the whole box, and rows outside the canvas are not contained; in the tiled layout, and in text, a prefix is
/// contained.
template <class Shape> struct TileRows {
  // Rows that follow each other in memory: no coordinates are needed.
  static constexpr bool linear = config::layout_tiled || (Shape::t == 1 && Shape::h == 1);
  static constexpr bool has_box = !linear && !config::edges_full;
  static constexpr bool has_prefix = config::text || (linear && !config::edges_full);
  static constexpr bool may_be_partial = has_box || has_prefix;

  int first_token;                  // of row 0
  int stride_t, stride_h;           // tokens from one row of the tile to the next along t and h
  int extent_t, extent_h, extent_w; // rows at or past these coordinates are not contained
  int end;                          // one past the last contained row

  TILEWRIGHT_DEVICE int token(int row) const { return first_token + token_offset(row); }

  /// token(first + row) - token(first), for rows and firsts whose digits in (t, h, w) do not carry into each other
  /// (keeps_digits): for a row known at compile time, a constant or two additions.
  TILEWRIGHT_DEVICE int token_offset(int row) const {
    if constexpr (linear) {
      return row;
    } else {
      return row / (Shape::h * Shape::w) * stride_t + row / Shape::w % Shape::h * stride_h + row % Shape::w;
    }
  }
  /// Whether a multiple of `count` and a row below `count` never carry into each other.
  template <int count>
  static constexpr bool keeps_digits = linear || count % (Shape::h * Shape::w) == 0 ||
                                       (Shape::h * Shape::w % count == 0 &&
                                        (count % Shape::w == 0 || Shape::w % count == 0));

  TILEWRIGHT_DEVICE bool contains(int row) const {
    bool inside = true;
    if constexpr (has_box) {
      inside =
          row / (Shape::h * Shape::w) < extent_t && row / Shape::w % Shape::h < extent_h && row % Shape::w < extent_w;
    }
    if constexpr (has_prefix) {
      inside = inside && row < end;
    }
    return inside;
  }

  /// Whether all of the rows first .. first + count - 1 are contained.
  TILEWRIGHT_DEVICE bool contains_all(int first, int count) const {
    bool inside = true;
    if constexpr (has_box) {
      inside = (first + count - 1) / (Shape::h * Shape::w) < extent_t && extent_h >= Shape::h && extent_w >= Shape::w;
    }
    if constexpr (has_prefix) {
      inside = inside && first + count <= end;
    }
    return inside;
  }
};

/// The rows of a video tile. size: valid tokens of this tile in the tiled layout, or -1: they follow from the canvas.
template <class Shape>
TILEWRIGHT_DEVICE TileRows<Shape> video_rows(const TokenGrid& grid, TileCoordinate tile, int size = -1) {
  TileRows<Shape> rows;
  rows.extent_t = minimum(Shape::t, grid.t - tile.t * Shape::t);
  rows.extent_h = minimum(Shape::h, grid.h - tile.h * Shape::h);
  rows.extent_w = minimum(Shape::w, grid.w - tile.w * Shape::w);
  if constexpr (config::layout_tiled && !config::dense) {
    rows.first_token = ((tile.t * grid.tiles_h + tile.h) * grid.tiles_w + tile.w) * Shape::tokens;
    rows.end = size >= 0 ? size : rows.extent_t * rows.extent_h * rows.extent_w;
  } else {
    rows.first_token = (tile.t * Shape::t * grid.h + tile.h * Shape::h) * grid.w + tile.w * Shape::w;
    rows.end = ((rows.extent_t - 1) * Shape::h + rows.extent_h - 1) * Shape::w + rows.extent_w;
  }
  rows.stride_t = grid.h * grid.w;
  rows.stride_h = grid.w;
  if constexpr (config::edges_full && !config::dense) { // a dense problem's edges speak of its keys alone
    rows.end = Shape::tokens;
  }
  return rows;
}

/// The text's rows: they follow the video's, one after the other.
template <class Shape> TILEWRIGHT_DEVICE TileRows<Shape> text_rows(const TokenGrid& grid, int count) {
  TileRows<Shape> rows;
  rows.first_token =
      config::layout_tiled ? grid.tiles_t * grid.tiles_h * grid.tiles_w * Shape::tokens : grid.t * grid.h * grid.w;
  rows.stride_t = Shape::h * Shape::w;
  rows.stride_h = Shape::w;
  rows.extent_t = rows.extent_h = rows.extent_w = no_limit;
  rows.end = count;
  return rows;
}

} // namespace tilewright
