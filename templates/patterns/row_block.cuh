// The rows of one side, queries or keys, that a thread block computes for: of a tile, or of the text.
#pragma once

#include "patterns/geometry.cuh"

namespace tilewright {

template <class Shape> struct RowBlock {
  int batch, head;         // of this side: keys have key/value heads
  bool text;               // text rows; otherwise rows of a video tile
  int tile;                // number of the tile in (t, h, w) order
  TileCoordinate position; // of the tile
  int first_row;           // of the block within the tile or the text
  TileRows<Shape> rows;    // rows that exist in the tensors
  int valid_end;           // rows from here on are padding: they exist, and what is computed for them is 0

  /// A row of the block is computed where it is valid, written where it exists.
  TILEWRIGHT_DEVICE bool exists(int row) const {
    return rows.contains(first_row + row) && (!config::dense || first_row + row < rows.end);
  }
  TILEWRIGHT_DEVICE bool valid(int row) const {
    return exists(row) && (!TileRows<Shape>::has_prefix || first_row + row < valid_end);
  }
  /// Whether any row of the block may be valid.
  TILEWRIGHT_DEVICE bool any_valid() const { return first_row < valid_end; }
  TILEWRIGHT_DEVICE int token(int row) const { return rows.token(first_row + row); }
};

/// The valid tokens of each tile, where they do not follow from the canvas, and the stride of the batch.
struct TileSizes {
  const int32_t* sizes = nullptr;
  int64_t batch_stride = 0;
};

/// index counts blocks of block_rows rows within a head first, then heads, then batch: what runs at the same time
/// shares the other side's rows. blocks: of a head.
template <class Shape, int block_rows>
TILEWRIGHT_DEVICE RowBlock<Shape> row_block(const AttentionParameters& p, const TokenGrid& grid, int blocks, int heads,
                                            int index, TileSizes sizes) {
  constexpr int blocks_per_tile = Shape::tokens / block_rows;
  static_assert(Shape::tokens % block_rows == 0, "a tile must be a whole number of blocks");

  RowBlock<Shape> block;
  const int within_head = index % blocks;
  block.head = index / blocks % heads;
  block.batch = index / blocks / heads;

  const int tiles = grid.tiles_t * grid.tiles_h * grid.tiles_w;
  block.tile = within_head / blocks_per_tile;
  block.text = config::text && block.tile >= tiles;
  if (block.text) {
    block.position = {0, 0, 0};
    block.first_row = (within_head - tiles * blocks_per_tile) * block_rows;
    block.rows = text_rows<Shape>(grid, p.text_rows);
    block.valid_end = p.text_length;
    return block;
  }
  block.position = tile_coordinate(grid, block.tile);
  block.first_row = within_head % blocks_per_tile * block_rows;
  const int size =
      sizes.sizes == nullptr ? -1 : load_constant(sizes.sizes + block.batch * sizes.batch_stride + block.tile);
  block.rows = video_rows<Shape>(grid, block.position, size);
  block.valid_end = block.rows.end;
  if constexpr (config::layout_tiled && !config::dense) {
    block.rows.end = Shape::tokens; // padding rows exist in the tiled layout
  }
  return block;
}

} // namespace tilewright
