// A warp's tile of one head: what pooling and its gradient work on. A lane holds 8 neighbouring columns, 16 bytes, of
// every rows_per_pass-th row.
#pragma once

#include "patterns/geometry.cuh"

#include "device/element.cuh"
#include "kernels/tile_parameters.cuh"

namespace tilewright {

using Element = config::Element;

constexpr int threads = config::warps * warp_size;
constexpr int chunk_elements = 8; // of 16 bytes
constexpr int chunks_per_row = config::head_dim / chunk_elements;
constexpr int rows_per_pass = warp_size / chunks_per_row;
static_assert(QueryTile::tokens % rows_per_pass == 0, "a warp reads whole rows");

struct WarpTile {
  int batch, head, tile;
  int64_t row; // of the tile in [batch, heads, tiles]
  TileRows<QueryTile> rows;
  int count; // valid tokens

  /// The number counts all tiles of all heads and batches, those that lie close together in memory one after the other:
  /// the heads of a token, or the tiles of a head.
  TILEWRIGHT_DEVICE WarpTile(int number, int heads, const TokenGrid& grid, const int32_t* sizes,
                             int64_t size_batch_stride) {
    const int tiles = grid.tiles_t * grid.tiles_h * grid.tiles_w;
    if constexpr (config::layout_tiled) {
      tile = number % tiles;
      head = number / tiles % heads;
    } else {
      head = number % heads;
      tile = number / heads % tiles;
    }
    batch = number / heads / tiles;
    row = (static_cast<int64_t>(batch) * heads + head) * tiles + tile;
    int size = -1; // from the canvas
    if constexpr (config::edges_sized) {
      if (sizes != nullptr) {
        size = load_constant(sizes + batch * size_batch_stride + tile);
      }
    }
    rows = video_rows<QueryTile>(grid, tile_coordinate(grid, tile), size);
    count = config::layout_tiled ? rows.end : rows.extent_t * rows.extent_h * rows.extent_w;
  }

  TILEWRIGHT_DEVICE static int chunk() { return lane_index() % chunks_per_row; }
  TILEWRIGHT_DEVICE static int first_row() { return lane_index() / chunks_per_row; }
};

} // namespace tilewright
