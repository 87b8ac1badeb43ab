#include <doctest/doctest.h>

#include <algorithm>
#include <cstdlib>
#include <string>

#include <fmt/format.h>

#include "problem/fields.hpp"
#include "problem/pictures.hpp"
#include "problem/relation.hpp"
#include <tilewright/error.hpp>

using namespace tilewright;
using namespace tilewright::problem;
using tilewright::testing::read_pictures;

namespace {

/// A canvas drawn by asking each token; time planes side by side.
template <typename Cell> std::string draw(const Canvas& canvas, const char* gap, const char* plane_gap, Cell cell) {
  std::string rows;
  for (std::int32_t h = 0; h < canvas.h; ++h) {
    for (std::int32_t t = 0; t < canvas.t; ++t)
      for (std::int32_t w = 0; w < canvas.w; ++w)
        rows += (w > 0 ? gap : t > 0 ? plane_gap : "") + cell(Extent3{t, h, w});
    rows += "\n";
  }
  return rows;
}

/// The definition by search: of all runs of min(2*half + 1, tiles) tiles, the one whose centre is nearest to the query.
TileRange nearest_run(std::int32_t query, std::int32_t tiles, std::int32_t window) {
  const std::int32_t half = window / 2, width = std::min(2 * half + 1, tiles);
  TileRange best{0, width};
  for (std::int32_t first = 0; first + width <= tiles; ++first)
    if (std::abs(first + half - query) < std::abs(best.first + half - query))
      best.first = first;
  return best;
}

constexpr std::string_view picture_fields[] = {"canvas", "tile", "window", "query", "layout", "rows"};

} // namespace

TEST_CASE("windows look as in windows.txt") {
  const auto pictures = read_pictures("problem/windows.txt");
  CHECK(pictures.size() == 18);
  for (const auto& picture : pictures) {
    const std::string line = picture.fields + "," + picture.own_fields;
    CAPTURE(line);
    const Fields fields("picture", line, picture_fields);
    const Tiling tiling(fields.extent("canvas", {}), fields.extent("tile", {}));
    const Window window = fields.extent("window", {});
    const std::int64_t query = fields.integer("query", 0, 0, tiling.tile_count() - 1);
    CHECK(draw(tiling.canvas(), "", " ", [&](const Extent3& token) -> std::string {
            const std::int64_t key = tiling.tile_row_of(token, Layout::raster).tile;
            return !attends(tiling, window, query, key) ? "." : key == query ? "Q" : "#";
          }) == picture.rows);
  }
}

TEST_CASE("tokens lie as in tokens.txt") {
  constexpr Named<Layout> layouts[] = {{Layout::raster, "raster"}, {Layout::tiled, "tiled"}};
  const auto pictures = read_pictures("problem/tokens.txt");
  CHECK(pictures.size() == 6);
  for (const auto& picture : pictures) {
    const std::string line = picture.fields + "," + picture.own_fields;
    CAPTURE(line);
    const Fields fields("picture", line, picture_fields);
    const Tiling tiling(fields.extent("canvas", {}), fields.extent("tile", {}));
    const Layout layout = fields.choice("layout", Layout::raster, layouts);
    const bool rows = fields.integer("rows", 0, 0, 1) == 1;
    CHECK(draw(tiling.canvas(), " ", "  ", [&](const Extent3& token) {
            return fmt::format("{:02}", rows ? tiling.tile_row_of(token, layout).row : tiling.token_of(token, layout));
          }) == picture.rows);
  }
}

TEST_CASE("windows and their inverse agree with the definition on every axis of up to 12 tiles") {
  for (std::int32_t tiles = 1; tiles <= 12; ++tiles)
    for (std::int32_t window = 1; window <= 14; ++window) {
      CAPTURE(tiles);
      CAPTURE(window);
      for (std::int32_t query = 0; query < tiles; ++query) {
        const TileRange expected = nearest_run(query, tiles, window);
        CHECK(window_on_axis(query, tiles, window) == expected);
        const TileRange inverse = queries_on_axis(query, tiles, window); // of the tile of that number
        CHECK((inverse.first >= 0 && inverse.count >= 1 && inverse.first + inverse.count <= tiles));
        for (std::int32_t key = 0; key < tiles; ++key)
          CHECK(queries_on_axis(key, tiles, window).contains(query) == expected.contains(key));
      }
    }
}

TEST_CASE("a huge window is every tile") {
  CHECK(window_on_axis(3, 5, 2147483647) == TileRange{0, 5});
  CHECK(queries_on_axis(3, 5, 2147483647) == TileRange{0, 5});
}

TEST_CASE("tokens, rows and coordinates map onto each other") {
  const Tile tiles[] = {{2, 2, 2}, {1, 3, 2}, {3, 1, 4}};
  for (const Tile& tile : tiles)
    for (const Canvas& canvas : {Canvas{4, 6, 4}, Canvas{3, 5, 7}, Canvas{1, 1, 9}, Canvas{1, 4, 1}})
      for (const Layout layout : {Layout::raster, Layout::tiled}) {
        CAPTURE(to_string(canvas));
        CAPTURE(to_string(tile));
        CAPTURE(to_string(layout));
        const Tiling tiling(canvas, tile);

        std::int64_t present = 0, valid_rows = 0;
        for (std::int64_t token = 0; token < tiling.token_count(layout); ++token) {
          const auto coordinate = tiling.coordinate_of(token, layout);
          if (!coordinate)
            continue;
          ++present;
          CHECK(tiling.token_of(*coordinate, layout) == token);
          const TileRow place = tiling.tile_row_of(*coordinate, layout);
          CHECK(tiling.coordinate_of(place, layout) == coordinate);
          CHECK(tiling.tile_coordinate(place.tile) ==
                Extent3{coordinate->t / tile.t, coordinate->h / tile.h, coordinate->w / tile.w});
          CHECK(tiling.tile_number(tiling.tile_coordinate(place.tile)) == place.tile);
        }
        CHECK(present == canvas.volume());

        for (std::int64_t number = 0; number < tiling.tile_count(); ++number) {
          std::int64_t valid = 0, previous = -1;
          for (std::int64_t row = 0; row < tile.volume(); ++row) {
            const auto coordinate = tiling.coordinate_of(TileRow{number, row}, layout);
            if (!coordinate)
              continue;
            ++valid;
            const std::int64_t raster = tiling.token_of(*coordinate, Layout::raster);
            CHECK(raster > previous); // (t, h, w) order inside a tile
            previous = raster;
            if (layout == Layout::tiled)
              CHECK(row == valid - 1); // valid tokens first
          }
          CHECK(valid == tiling.valid_tokens(number));
          valid_rows += valid;
        }
        CHECK(valid_rows == canvas.volume());
        CHECK(tiling.ragged() == (tiling.token_count(Layout::tiled) != canvas.volume()));
      }
}

TEST_CASE("a tiling refuses extents that are not positive or overflow") {
  for (const Canvas& canvas : {Canvas{0, 4, 4}, Canvas{4, -1, 4}, Canvas{65536, 65536, 65536}, Canvas{1, 65536, 32768}})
    CHECK_THROWS_WITH_AS(Tiling(canvas, {1, 8, 8}),
                         doctest::Contains(fmt::format("canvas is '{}'", to_string(canvas)).c_str()), Error);
  CHECK_THROWS_WITH_AS(Tiling({4, 4, 4}, {4, 0, 4}), doctest::Contains("tile is '4x0x4'"), Error);
  CHECK(Tiling({1, 1, 2147483647}, {1, 1, 64}).tile_count() == 33554432);
}
