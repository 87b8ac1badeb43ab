// Block list: each query tile attends to its own ascending list of key tiles.
#pragma once

#include "device/copy.cuh"
#include "patterns/query_block.cuh"

namespace tilewright {

using PatternParameters = BlockListParameters;

TILEWRIGHT_DEVICE QueryBlock pattern_query_block(const AttentionArguments<PatternParameters>& arguments, int index) {
  const auto& lists = arguments.pattern;
  return query_block(arguments.attention, index,
                     config::edges_sized ? TileSizes{lists.query_sizes, lists.query_size_batch_stride} : TileSizes{});
}

/// A query block's key tiles, each by itself: for a warp whose lanes look at many at once.
struct ListedTiles {
  const int32_t* entries; // ascending
  const int32_t* sizes;   // valid tokens of each key tile; nullptr: all have some
  int count;

  TILEWRIGHT_DEVICE int number(int i) const { return load_constant(entries + i); }
  TILEWRIGHT_DEVICE bool has_keys(int number) const {
    return !config::edges_sized || sizes == nullptr || load_constant(sizes + number) > 0;
  }
};

TILEWRIGHT_DEVICE ListedTiles listed_tiles(const AttentionArguments<PatternParameters>& arguments,
                                           const QueryBlock& query) {
  const auto& lists = arguments.pattern;
  const int32_t* sizes = !config::edges_sized || lists.key_sizes == nullptr
                             ? nullptr
                             : lists.key_sizes + query.batch * lists.key_size_batch_stride;
  return {lists.indices + query.batch * lists.index_batch_stride + query.head * lists.index_head_stride +
              query.tile * lists.index_tile_stride,
          sizes,
          load_constant(lists.counts + query.batch * lists.count_batch_stride + query.head * lists.count_head_stride +
                        query.tile)};
}

/// Walks the listed tiles in steps of config::block_k rows, leaving out steps without a valid key.
class KeyBlocks {
public:
  /// All that distinguishes one step of a walk from another: a plain value.
  struct State {
    const int32_t* next;  // the list's entry behind this one
    const int32_t* sizes; // valid tokens of each key tile; nullptr: from the canvas
    int left;             // entries behind this one; -1 past the last
    TileCoordinate tile;
    int size; // valid tokens of the tile; -1: from the canvas
    int first_row;
  };

  TILEWRIGHT_DEVICE KeyBlocks(const AttentionArguments<PatternParameters>& arguments, const State& state)
      : grid_(arguments.attention.key_grid), state_(state) {
    find_rows();
  }
  TILEWRIGHT_DEVICE KeyBlocks(const AttentionArguments<PatternParameters>& arguments, const QueryBlock& query)
      : grid_(arguments.attention.key_grid) {
    const ListedTiles tiles = listed_tiles(arguments, query);
    state_.left = tiles.count;
    state_.next = tiles.entries;
    state_.sizes = tiles.sizes;
    state_.size = -1;
    state_.tile = {0, 0, 0};
    state_.first_row = 0;
    next_tile();
  }

  /// The rows of a video tile, given its number: what a walk finds when it meets it.
  static TILEWRIGHT_DEVICE TileRows<KeyTile> rows_of(const AttentionArguments<PatternParameters>& arguments, int batch,
                                                     int number, TileCoordinate tile) {
    const auto& lists = arguments.pattern;
    int size = -1;
    if (config::edges_sized && lists.key_sizes != nullptr) {
      size = load_constant(lists.key_sizes + batch * lists.key_size_batch_stride + number);
    }
    return video_rows<KeyTile>(arguments.attention.key_grid, tile, size);
  }

  TILEWRIGHT_DEVICE const State& state() const { return state_; }
  TILEWRIGHT_DEVICE bool done() const { return state_.left < 0; }
  TILEWRIGHT_DEVICE bool text() const { return false; }
  TILEWRIGHT_DEVICE TileCoordinate tile() const { return state_.tile; }
  /// The step's keys are rows first_row() .. first_row() + config::block_k - 1 of rows().
  TILEWRIGHT_DEVICE int first_row() const { return state_.first_row; }
  TILEWRIGHT_DEVICE const TileRows<KeyTile>& rows() const { return rows_; }

  TILEWRIGHT_DEVICE void advance() {
    state_.first_row += config::block_k;
    if (state_.first_row >= rows_.end) {
      state_.first_row = 0;
      next_tile();
    }
  }

private:
  /// Moves to the next listed tile that has a valid token.
  TILEWRIGHT_DEVICE void next_tile() {
    while (--state_.left >= 0) {
      const int number = load_constant(state_.next++);
      state_.tile = tile_coordinate(grid_, number);
      if (config::edges_sized && state_.sizes != nullptr) {
        state_.size = load_constant(state_.sizes + number);
      }
      find_rows();
      if (!config::edges_sized || rows_.end > 0) {
        return;
      }
    }
  }

  TILEWRIGHT_DEVICE void find_rows() { rows_ = video_rows<KeyTile>(grid_, state_.tile, state_.size); }

  const TokenGrid& grid_;
  State state_;
  TileRows<KeyTile> rows_;
};

} // namespace tilewright
