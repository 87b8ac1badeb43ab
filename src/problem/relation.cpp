#include "problem/relation.hpp"

#include <algorithm>
#include <limits>

#include <fmt/format.h>

#include <tilewright/error.hpp>

namespace tilewright::problem {
namespace {

constexpr std::int32_t ceil_divide(std::int32_t value, std::int32_t divisor) noexcept {
  return value / divisor + (value % divisor != 0 ? 1 : 0);
}

/// Position of a coordinate in a box, counted in (t, h, w) order, and back.
constexpr std::int64_t position(const Extent3& coordinate, const Extent3& box) noexcept {
  return (std::int64_t{coordinate.t} * box.h + coordinate.h) * box.w + coordinate.w;
}
constexpr Extent3 unposition(std::int64_t position, const Extent3& box) noexcept {
  return {static_cast<std::int32_t>(position / box.w / box.h), static_cast<std::int32_t>(position / box.w % box.h),
          static_cast<std::int32_t>(position % box.w)};
}

constexpr bool within(const Extent3& coordinate, const Extent3& box) noexcept {
  return coordinate.t < box.t && coordinate.h < box.h && coordinate.w < box.w;
}

constexpr Extent3 first_token(const Extent3& tile_coordinate, const Tile& tile) noexcept {
  return {tile_coordinate.t * tile.t, tile_coordinate.h * tile.h, tile_coordinate.w * tile.w};
}

void require_extents(std::string_view name, const Extent3& extents) {
  constexpr std::int64_t limit = std::numeric_limits<std::int32_t>::max();
  const bool positive = extents.t > 0 && extents.h > 0 && extents.w > 0;
  if (!positive || std::int64_t{extents.t} * extents.h > limit / extents.w)
    throw Error(ErrorCode::invalid_argument, fmt::format("{} is '{}'", name, to_string(extents)),
                fmt::format("positive extents with a product of at most {} are allowed", limit),
                "give the extents in (t, h, w) order, with 1 in front for fewer dimensions");
}

} // namespace

TileRange window_on_axis(std::int32_t query_tile, std::int32_t tiles, std::int32_t window) noexcept {
  const std::int32_t half = window / 2;
  const auto width = static_cast<std::int32_t>(std::min<std::int64_t>(2 * std::int64_t{half} + 1, tiles));
  return {std::clamp(query_tile - half, 0, tiles - width), width};
}

TileRange queries_on_axis(std::int32_t key_tile, std::int32_t tiles, std::int32_t window) noexcept {
  const std::int32_t half = window / 2;
  const std::int32_t width = window_on_axis(0, tiles, window).count;
  // The windows of the first half + 1 queries start at 0, those of the last half + 1 at tiles - width.
  const std::int32_t first = key_tile < width ? 0 : key_tile - half;
  const std::int32_t last = key_tile >= tiles - width ? tiles - 1 : key_tile + half;
  return {first, last - first + 1};
}

Tiling::Tiling(const Canvas& canvas, const Tile& tile) : canvas_(canvas), tile_(tile) {
  require_extents("canvas", canvas);
  require_extents("tile", tile);
  tiles_ = {ceil_divide(canvas.t, tile.t), ceil_divide(canvas.h, tile.h), ceil_divide(canvas.w, tile.w)};
}

bool Tiling::ragged() const noexcept {
  return canvas_.t % tile_.t != 0 || canvas_.h % tile_.h != 0 || canvas_.w % tile_.w != 0;
}

Extent3 Tiling::tile_coordinate(std::int64_t tile) const noexcept { return unposition(tile, tiles_); }

std::int64_t Tiling::tile_number(const Extent3& coordinate) const noexcept { return position(coordinate, tiles_); }

Extent3 Tiling::valid_extent(std::int64_t tile) const noexcept {
  const Extent3 first = first_token(tile_coordinate(tile), tile_);
  return {std::min(tile_.t, canvas_.t - first.t), std::min(tile_.h, canvas_.h - first.h),
          std::min(tile_.w, canvas_.w - first.w)};
}

std::int64_t Tiling::token_count(Layout layout) const noexcept {
  return layout == Layout::raster ? canvas_.volume() : tile_count() * tile_.volume();
}

std::int64_t Tiling::token_of(const Extent3& coordinate, Layout layout) const noexcept {
  if (layout == Layout::raster)
    return position(coordinate, canvas_);
  const TileRow place = tile_row_of(coordinate, layout);
  return place.tile * tile_.volume() + place.row;
}

std::optional<Extent3> Tiling::coordinate_of(std::int64_t token, Layout layout) const noexcept {
  if (layout == Layout::raster)
    return unposition(token, canvas_);
  return coordinate_of(TileRow{token / tile_.volume(), token % tile_.volume()}, layout);
}

TileRow Tiling::tile_row_of(const Extent3& coordinate, Layout layout) const noexcept {
  const std::int64_t tile = tile_number({coordinate.t / tile_.t, coordinate.h / tile_.h, coordinate.w / tile_.w});
  const Extent3 inside{coordinate.t % tile_.t, coordinate.h % tile_.h, coordinate.w % tile_.w};
  return {tile, position(inside, layout == Layout::raster ? tile_ : valid_extent(tile))};
}

std::optional<Extent3> Tiling::coordinate_of(const TileRow& place, Layout layout) const noexcept {
  const Extent3 valid = valid_extent(place.tile);
  if (layout == Layout::tiled && place.row >= valid.volume())
    return std::nullopt;
  const Extent3 inside = unposition(place.row, layout == Layout::raster ? tile_ : valid);
  if (!within(inside, valid))
    return std::nullopt;
  const Extent3 first = first_token(tile_coordinate(place.tile), tile_);
  return Extent3{first.t + inside.t, first.h + inside.h, first.w + inside.w};
}

bool attends(const Tiling& tiling, const Window& window, std::int64_t query_tile, std::int64_t key_tile) noexcept {
  const Extent3 tiles = tiling.tiles_per_axis();
  const Extent3 query = tiling.tile_coordinate(query_tile), key = tiling.tile_coordinate(key_tile);
  return window_on_axis(query.t, tiles.t, window.t).contains(key.t) &&
         window_on_axis(query.h, tiles.h, window.h).contains(key.h) &&
         window_on_axis(query.w, tiles.w, window.w).contains(key.w);
}

} // namespace tilewright::problem
