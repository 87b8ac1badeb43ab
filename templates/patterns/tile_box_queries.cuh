// The query blocks of a box of tiles, then of the text, for each query head that shares a key/value head: what dense
// and sliding tile attention walk through backward.
#pragma once

#include "patterns/key_block.cuh"
#include "patterns/tile_box.cuh"

namespace tilewright {

/// Walks the box's tiles in (t, h, w) order in steps of config::block_q rows, head by head, leaving out steps without a
/// valid query. Derived gives the box of a head's query tiles: TileBox box_of(int head) const.
template <class Derived> class TileBoxQueries {
public:
  /// All that distinguishes one step of a walk from another: a plain value.
  struct State {
    TileBox box;
    TileCoordinate tile;
    int head;      // of the queries
    int heads_end; // one past the last that shares the key/value head
    int first_row;
    enum Where { in_video, in_text, past_the_end } where;
  };

  TILEWRIGHT_DEVICE const State& state() const { return state_; }
  TILEWRIGHT_DEVICE bool done() const { return state_.where == State::past_the_end; }
  TILEWRIGHT_DEVICE int head() const { return state_.head; }
  TILEWRIGHT_DEVICE bool text() const { return config::text && state_.where == State::in_text; }
  TILEWRIGHT_DEVICE TileCoordinate tile() const { return state_.tile; }
  /// The step's queries are rows first_row() .. first_row() + config::block_q - 1 of rows().
  TILEWRIGHT_DEVICE int first_row() const { return state_.first_row; }
  TILEWRIGHT_DEVICE const TileRows<QueryTile>& rows() const { return rows_; }
  /// Whether row of the step is a query.
  TILEWRIGHT_DEVICE bool valid(int row) const {
    return rows_.contains(state_.first_row + row) && (!config::dense || state_.first_row + row < rows_.end);
  }
  /// Where the statistics of the step's first row stand within those of its head.
  TILEWRIGHT_DEVICE int statistics_row() const {
    const TokenGrid& grid = p_.query_grid;
    const int first =
        text() ? statistics_.text_first
               : ((state_.tile.t * grid.tiles_h + state_.tile.h) * grid.tiles_w + state_.tile.w) * QueryTile::tokens;
    return first + state_.first_row;
  }

  TILEWRIGHT_DEVICE void advance() {
    state_.first_row += config::block_q;
    if (state_.first_row < rows_.end) {
      return;
    }
    state_.first_row = 0;
    if (!text() && next_tile()) {
      // the next tile of the video
    } else if (config::text && !text() && p_.text_length > 0) {
      state_.where = State::in_text;
    } else if (++state_.head < state_.heads_end) {
      begin_head();
    } else {
      state_.where = State::past_the_end;
    }
    find_rows();
  }

protected:
  TILEWRIGHT_DEVICE TileBoxQueries(const AttentionParameters& p, const RowStatistics& statistics)
      : p_(p), statistics_(statistics) {}

  TILEWRIGHT_DEVICE void begin(const KeyBlock& key) {
    state_.head = key.head * p_.heads_per_kv_head;
    state_.heads_end = state_.head + p_.heads_per_kv_head;
    begin_head();
    if (!key.any_valid()) {
      state_.where = State::past_the_end;
    }
    find_rows();
  }
  TILEWRIGHT_DEVICE void resume(const State& state) {
    state_ = state;
    find_rows();
  }

private:
  TILEWRIGHT_DEVICE void begin_head() {
    state_.box = static_cast<const Derived*>(this)->box_of(state_.head);
    state_.tile = {state_.box.t.start, state_.box.h.start, state_.box.w.start};
    state_.first_row = 0;
    state_.where = State::in_video;
  }

  TILEWRIGHT_DEVICE bool next_tile() {
    if (++state_.tile.w < state_.box.w.end) {
      return true;
    }
    state_.tile.w = state_.box.w.start;
    if (++state_.tile.h < state_.box.h.end) {
      return true;
    }
    state_.tile.h = state_.box.h.start;
    return ++state_.tile.t < state_.box.t.end;
  }

  TILEWRIGHT_DEVICE void find_rows() {
    rows_ = text() ? text_rows<QueryTile>(p_.query_grid, p_.text_length)
                   : video_rows<QueryTile>(p_.query_grid, state_.tile);
  }

  const AttentionParameters& p_;
  const RowStatistics& statistics_;
  State state_;
  TileRows<QueryTile> rows_;
};

} // namespace tilewright
