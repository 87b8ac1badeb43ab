// Which key rows a thread block computes the gradients of, and which query rows it meets on the way.
#pragma once

#include "kernels/attention_backward_parameters.cuh"
#include "patterns/geometry.cuh"

namespace tilewright {

/// The twin of QueryBlock.
struct KeyBlock {
  int batch, kv_head;
  bool text;               // text rows; otherwise rows of a video tile
  int tile;                // number of the tile in (t, h, w) order
  TileCoordinate position; // of the tile
  int first_row;           // of the block within the tile or the text
  TileRows<KeyTile> rows;  // rows that exist in the tensors
  int valid_end;           // rows from here on are padding: they exist, and their gradients are 0

  TILEWRIGHT_DEVICE bool exists(int row) const {
    return rows.contains(first_row + row) && (!config::dense || first_row + row < rows.end);
  }
  TILEWRIGHT_DEVICE bool valid(int row) const {
    return exists(row) && (!TileRows<KeyTile>::has_prefix || first_row + row < valid_end);
  }
  /// Whether any row of the block may be valid: otherwise no query sees it.
  TILEWRIGHT_DEVICE bool any_valid() const { return first_row < valid_end; }
  TILEWRIGHT_DEVICE int token(int row) const { return rows.token(first_row + row); }
};

/// index counts key blocks within a head first, then key/value heads, then batch: what runs at the same time shares
/// queries. sizes, where given: valid tokens of each key tile, and their batch stride.
TILEWRIGHT_DEVICE KeyBlock key_block(const AttentionParameters& p, int key_blocks, int index,
                                     const int32_t* sizes = nullptr, int64_t sizes_batch_stride = 0) {
  constexpr int blocks_per_tile = KeyTile::tokens / config::block_k;
  static_assert(KeyTile::tokens % config::block_k == 0, "a key tile must be a whole number of key blocks");

  KeyBlock block;
  const int within_head = index % key_blocks;
  const int kv_heads = p.heads / p.heads_per_kv_head;
  block.kv_head = index / key_blocks % kv_heads;
  block.batch = index / key_blocks / kv_heads;

  const int tiles = p.key_grid.tiles_t * p.key_grid.tiles_h * p.key_grid.tiles_w;
  block.tile = within_head / blocks_per_tile;
  block.text = config::text && block.tile >= tiles;
  if (block.text) {
    block.position = {0, 0, 0};
    block.first_row = (within_head - tiles * blocks_per_tile) * config::block_k;
    block.rows = text_rows<KeyTile>(p.key_grid, p.text_rows);
    block.valid_end = p.text_length;
    return block;
  }
  block.position = tile_coordinate(p.key_grid, block.tile);
  block.first_row = within_head % blocks_per_tile * config::block_k;
  const int size = sizes == nullptr ? -1 : load_constant(sizes + block.batch * sizes_batch_stride + block.tile);
  block.rows = video_rows<KeyTile>(p.key_grid, block.position, size);
  block.valid_end = block.rows.end;
  if constexpr (config::layout_tiled && !config::dense) {
    block.rows.end = KeyTile::tokens; // padding rows exist in the tiled layout
  }
  return block;
}

} // namespace tilewright
