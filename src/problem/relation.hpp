// The block relation of docs/semantics.md in plain values: which tiles see which, and where a token lies.
#pragma once

#include <cstdint>
#include <optional>

#include <tilewright/pattern.hpp>
#include <tilewright/types.hpp>

namespace tilewright::problem {

/// Tiles first .. first + count - 1 of one axis.
struct TileRange {
  std::int32_t first = 0, count = 0;

  [[nodiscard]] constexpr bool contains(std::int32_t tile) const noexcept {
    return tile >= first && tile - first < count;
  }
  friend constexpr bool operator==(const TileRange&, const TileRange&) = default;
};

/// Sliding tile attention along one axis of `tiles` tiles: the key tiles that a query tile attends to. An even window
/// acts as the next odd one; at the axis's ends the window slides inward and keeps its width.
TileRange window_on_axis(std::int32_t query_tile, std::int32_t tiles, std::int32_t window) noexcept;

/// The inverse: the query tiles whose window holds this key tile. They are one contiguous range.
TileRange queries_on_axis(std::int32_t key_tile, std::int32_t tiles, std::int32_t window) noexcept;

/// A row of a tile, as kernels see it. In the raster layout a copied box keeps its full shape, so row counts
/// (t, h, w) positions of the whole tile and the valid rows of a clipped tile are no prefix; in the tiled layout
/// row counts the tile's valid tokens.
struct TileRow {
  std::int64_t tile = 0;
  std::int64_t row = 0;

  friend constexpr bool operator==(const TileRow&, const TileRow&) = default;
};

/// A canvas cut into tiles. Tiles are numbered in (t, h, w) order; coordinates of tiles count tiles, coordinates of
/// tokens count tokens. Text tokens are no part of it: they follow after token_count(layout).
class Tiling {
public:
  /// Throws invalid_argument unless all extents are positive and the canvas has fewer than 2^31 tokens.
  Tiling(const Canvas& canvas, const Tile& tile);

  [[nodiscard]] const Canvas& canvas() const noexcept { return canvas_; }
  [[nodiscard]] const Tile& tile() const noexcept { return tile_; }
  [[nodiscard]] const Extent3& tiles_per_axis() const noexcept { return tiles_; }
  [[nodiscard]] std::int64_t tile_count() const noexcept { return tiles_.volume(); }

  /// Whether the canvas is no multiple of the tile, so that edge tiles hold fewer tokens.
  [[nodiscard]] bool ragged() const noexcept;

  [[nodiscard]] Extent3 tile_coordinate(std::int64_t tile) const noexcept;
  [[nodiscard]] std::int64_t tile_number(const Extent3& coordinate) const noexcept;

  /// Extents of a tile's part inside the canvas, and its volume.
  [[nodiscard]] Extent3 valid_extent(std::int64_t tile) const noexcept;
  [[nodiscard]] std::int64_t valid_tokens(std::int64_t tile) const noexcept { return valid_extent(tile).volume(); }

  /// Rows that the canvas takes in a tensor: its tokens, or, in the tiled layout, full tiles with their padding.
  [[nodiscard]] std::int64_t token_count(Layout layout) const noexcept;

  /// Where a token lies in a tensor of this layout, and back; none for the tiled layout's padding rows.
  [[nodiscard]] std::int64_t token_of(const Extent3& coordinate, Layout layout) const noexcept;
  [[nodiscard]] std::optional<Extent3> coordinate_of(std::int64_t token, Layout layout) const noexcept;

  /// Which row of which tile a token is, and back; none for rows outside the canvas.
  [[nodiscard]] TileRow tile_row_of(const Extent3& coordinate, Layout layout) const noexcept;
  [[nodiscard]] std::optional<Extent3> coordinate_of(const TileRow& place, Layout layout) const noexcept;

private:
  Canvas canvas_;
  Tile tile_;
  Extent3 tiles_;
};

/// Whether a query tile's window holds a key tile (numbers in the same tiling).
bool attends(const Tiling& tiling, const Window& window, std::int64_t query_tile, std::int64_t key_tile) noexcept;

} // namespace tilewright::problem
