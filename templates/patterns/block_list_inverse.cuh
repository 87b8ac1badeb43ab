// Block lists, seen from the keys: transposed lists name the query tiles that attend to a key tile.
#pragma once

#include "patterns/block_list.cuh"
#include "patterns/key_block.cuh"

namespace tilewright {

using BackwardArguments = AttentionBackwardArguments<PatternParameters>;

TILEWRIGHT_DEVICE KeyBlock pattern_key_block(const BackwardArguments& arguments, int index) {
  const auto& lists = arguments.call.pattern;
  return key_block(arguments.call.attention, arguments.backward.key_blocks, index,
                   config::edges_sized ? TileSizes{lists.key_sizes, lists.key_size_batch_stride} : TileSizes{});
}

/// Walks the query tiles that see a key block in steps of config::block_q rows, head by head, leaving out steps without
/// a valid query.
class QueryBlocks {
public:
  /// All that distinguishes one step of a walk from another: a plain value.
  struct State {
    const int32_t* next; // the list's entry behind this one
    int left;            // entries behind this one; -1 past the last
    int head;            // of the queries
    int heads_end;       // one past the last that shares the key/value head
    int tile;            // its number
    int size;            // valid tokens of the tile; -1: from the canvas
    int first_row;
  };

  TILEWRIGHT_DEVICE QueryBlocks(const BackwardArguments& arguments, const KeyBlock& key)
      : arguments_(arguments), key_(key) {
    const int group = arguments.call.attention.heads_per_kv_head;
    state_.head = key.head * group;
    state_.heads_end = state_.head + group;
    state_.tile = 0;
    state_.size = -1;
    state_.first_row = 0;
    begin_head();
    if (!key.any_valid()) {
      state_.head = state_.heads_end - 1;
      state_.left = 0;
    }
    next_tile();
  }
  /// state: of a walk from the same key block.
  TILEWRIGHT_DEVICE QueryBlocks(const BackwardArguments& arguments, const KeyBlock& key, const State& state)
      : arguments_(arguments), key_(key), state_(state) {
    find_rows();
  }

  TILEWRIGHT_DEVICE const State& state() const { return state_; }
  TILEWRIGHT_DEVICE bool done() const { return state_.left < 0; }
  TILEWRIGHT_DEVICE int head() const { return state_.head; }
  TILEWRIGHT_DEVICE bool text() const { return false; }
  TILEWRIGHT_DEVICE TileCoordinate tile() const { return tile_coordinate(grid(), state_.tile); }
  /// The step's queries are rows first_row() .. first_row() + config::block_q - 1 of rows().
  TILEWRIGHT_DEVICE int first_row() const { return state_.first_row; }
  TILEWRIGHT_DEVICE const TileRows<QueryTile>& rows() const { return rows_; }
  /// Whether row of the step is a query.
  TILEWRIGHT_DEVICE bool valid(int row) const { return rows_.contains(state_.first_row + row); }
  /// Where the statistics of the step's first row stand within those of its head.
  TILEWRIGHT_DEVICE int statistics_row() const { return state_.tile * QueryTile::tokens + state_.first_row; }

  TILEWRIGHT_DEVICE void advance() {
    state_.first_row += config::block_q;
    if (state_.first_row >= rows_.end) {
      state_.first_row = 0;
      next_tile();
    }
  }

private:
  TILEWRIGHT_DEVICE const TokenGrid& grid() const { return arguments_.call.attention.query_grid; }

  TILEWRIGHT_DEVICE void begin_head() {
    const TransposedListParameters& lists = arguments_.backward.transposed;
    const int32_t* offsets =
        lists.offsets + key_.batch * lists.offset_batch_stride + state_.head * lists.offset_head_stride + key_.tile;
    const int first = load_constant(offsets);
    state_.left = load_constant(offsets + 1) - first;
    state_.next = lists.indices + key_.batch * lists.index_batch_stride + state_.head * lists.index_head_stride + first;
  }

  /// Moves to the next listed tile that has a valid token, of this head or the next.
  TILEWRIGHT_DEVICE void next_tile() {
    for (;;) {
      while (--state_.left >= 0) {
        state_.tile = load_constant(state_.next++);
        const auto& lists = arguments_.call.pattern;
        if (config::edges_sized && lists.query_sizes != nullptr) {
          state_.size = load_constant(lists.query_sizes + key_.batch * lists.query_size_batch_stride + state_.tile);
        }
        find_rows();
        if (!config::edges_sized || rows_.end > 0) {
          return;
        }
      }
      if (++state_.head >= state_.heads_end) {
        return;
      }
      begin_head();
    }
  }

  TILEWRIGHT_DEVICE void find_rows() { rows_ = video_rows<QueryTile>(grid(), tile(), state_.size); }

  const BackwardArguments& arguments_;
  const KeyBlock& key_;
  State state_;
  TileRows<QueryTile> rows_;
};

} // namespace tilewright
