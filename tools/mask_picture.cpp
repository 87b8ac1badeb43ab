#include "mask_picture.hpp"

#include <fmt/format.h>

#include <tilewright/error.hpp>

namespace tilewright::tools {
namespace {

enum Cell : std::uint8_t { ignored, attended, query, between_slices };

void require(const char* name, std::int64_t value, std::int64_t count) {
  if (value < 0 || value >= count)
    throw Error(ErrorCode::invalid_argument, fmt::format("{} is {}", name, value),
                fmt::format("0 to {} is allowed", count - 1), fmt::format("correct --{}", name));
}

} // namespace

const Style& mask_style() {
  static const Style style{{{235, 235, 235}, {40, 90, 160}, {215, 80, 40}, {255, 255, 255}}, ".#Q "};
  return style;
}

Picture draw_matrix(const BlockMap& map, std::int64_t batch, std::int64_t head) {
  require("batch", batch, map.batches());
  require("head", head, map.heads());
  Picture picture(map.key_tiles(), map.query_tiles(), ignored);
  for (std::int64_t y = 0; y < map.query_tiles(); ++y)
    for (std::int64_t x = 0; x < map.key_tiles(); ++x)
      if (map.attends(batch, head, y, x))
        picture.at(x, y) = attended;
  return picture;
}

Picture draw_canvas(const BlockMap& map, std::int64_t batch, std::int64_t head, std::int64_t query_tile) {
  require("batch", batch, map.batches());
  require("head", head, map.heads());
  require("query", query_tile, map.query_tiles());
  const problem::Tiling& keys = *map.keys();
  const Canvas& canvas = keys.canvas();
  const bool same_tiling = map.queries()->canvas() == canvas && map.queries()->tile() == keys.tile();
  const std::int64_t pitch = canvas.w + 1;
  Picture picture(canvas.t * pitch - 1, canvas.h, between_slices);
  for (std::int32_t t = 0; t < canvas.t; ++t)
    for (std::int32_t h = 0; h < canvas.h; ++h)
      for (std::int32_t w = 0; w < canvas.w; ++w) {
        const std::int64_t tile = keys.tile_row_of(Extent3{t, h, w}, Layout::raster).tile;
        picture.at(t * pitch + w, h) = same_tiling && tile == query_tile            ? query
                                       : map.attends(batch, head, query_tile, tile) ? attended
                                                                                    : ignored;
      }
  return picture;
}

} // namespace tilewright::tools
