// Which query rows a thread block computes.
#pragma once

#include "patterns/geometry.cuh"

namespace tilewright {

struct QueryBlock {
  int batch, head;
  bool text;                // text rows; otherwise rows of a video tile
  int tile;                 // number of the tile in (t, h, w) order
  TileCoordinate position;  // of the tile
  int first_row;            // of the block within the tile or the text
  TileRows<QueryTile> rows; // rows that exist in the tensors
  int valid_end;            // rows from here on are padding: they exist, and their output is 0

  /// A row of the block is computed where it is valid, written where it exists.
  TILEWRIGHT_DEVICE bool exists(int row) const {
    return rows.contains(first_row + row) && (!config::dense || first_row + row < rows.end);
  }
  TILEWRIGHT_DEVICE bool valid(int row) const {
    return exists(row) && (!TileRows<QueryTile>::has_prefix || first_row + row < valid_end);
  }
  TILEWRIGHT_DEVICE int token(int row) const { return rows.token(first_row + row); }
};

/// index counts query blocks within a head first, then heads, then batch: what runs at the same time shares keys.
/// sizes, where given: valid tokens of each query tile, and their batch stride.
TILEWRIGHT_DEVICE QueryBlock query_block(const AttentionParameters& p, int index, const int32_t* sizes = nullptr,
                                         int64_t sizes_batch_stride = 0) {
  constexpr int blocks_per_tile = QueryTile::tokens / config::block_q;
  static_assert(QueryTile::tokens % config::block_q == 0, "a query tile must be a whole number of query blocks");

  QueryBlock block;
  const int within_head = index % p.query_blocks;
  block.head = index / p.query_blocks % p.heads;
  block.batch = index / p.query_blocks / p.heads;

  const int tiles = p.query_grid.tiles_t * p.query_grid.tiles_h * p.query_grid.tiles_w;
  block.tile = within_head / blocks_per_tile;
  block.text = config::text && block.tile >= tiles;
  if (block.text) {
    block.position = {0, 0, 0};
    block.first_row = (within_head - tiles * blocks_per_tile) * config::block_q;
    block.rows = text_rows<QueryTile>(p.query_grid, p.text_rows);
    block.valid_end = p.text_length;
    return block;
  }
  block.position = tile_coordinate(p.query_grid, block.tile);
  block.first_row = within_head % blocks_per_tile * config::block_q;
  const int size = sizes == nullptr ? -1 : load_constant(sizes + block.batch * sizes_batch_stride + block.tile);
  block.rows = video_rows<QueryTile>(p.query_grid, block.position, size);
  block.valid_end = block.rows.end;
  if constexpr (config::layout_tiled && !config::dense) {
    block.rows.end = QueryTile::tokens; // padding rows exist in the tiled layout
  }
  return block;
}

} // namespace tilewright
