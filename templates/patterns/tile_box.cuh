// The key blocks of a box of tiles, then of the text: what dense and sliding tile attention walk through.
#pragma once

#include "patterns/geometry.cuh"

namespace tilewright {

/// A range of tiles along one axis.
struct TileRange {
  int start, end;
};

struct TileBox {
  TileRange t, h, w;
};

TILEWRIGHT_DEVICE TileBox whole_canvas(const TokenGrid& grid) {
  return {{0, grid.tiles_t}, {0, grid.tiles_h}, {0, grid.tiles_w}};
}

/// Walks the box's tiles in (t, h, w) order in steps of config::block_k rows, leaving out steps without a valid key.
class TileBoxKeys {
public:
  /// All that distinguishes one step of a walk from another: a plain value.
  struct State {
    TileBox box;
    TileCoordinate tile;
    int first_row;
    enum Where { in_video, in_text, past_the_end } where;
  };

  TILEWRIGHT_DEVICE TileBoxKeys(const AttentionParameters& p, const State& state) : p_(p), state_(state) {
    find_rows();
  }
  TILEWRIGHT_DEVICE TileBoxKeys(const AttentionParameters& p, const TileBox& box)
      : TileBoxKeys(p, State{box, {box.t.start, box.h.start, box.w.start}, 0, State::in_video}) {}

  /// The rows of a video tile, given its number: what a walk finds when it meets it.
  template <class Arguments>
  static TILEWRIGHT_DEVICE TileRows<KeyTile> rows_of(const Arguments& arguments, int, int, TileCoordinate tile) {
    return video_rows<KeyTile>(arguments.attention.key_grid, tile);
  }

  TILEWRIGHT_DEVICE const State& state() const { return state_; }
  TILEWRIGHT_DEVICE bool done() const { return state_.where == State::past_the_end; }
  TILEWRIGHT_DEVICE bool text() const { return config::text && state_.where == State::in_text; }
  TILEWRIGHT_DEVICE TileCoordinate tile() const { return state_.tile; }
  /// The step's keys are rows first_row() .. first_row() + config::block_k - 1 of rows().
  TILEWRIGHT_DEVICE int first_row() const { return state_.first_row; }
  TILEWRIGHT_DEVICE const TileRows<KeyTile>& rows() const { return rows_; }

  TILEWRIGHT_DEVICE void advance() {
    state_.first_row += config::block_k;
    if (state_.first_row < rows_.end) {
      return;
    }
    state_.first_row = 0;
    if (!text() && next_tile()) {
      // the next tile of the video
    } else if (config::text && !text() && p_.text_length > 0) {
      state_.where = State::in_text;
    } else {
      state_.where = State::past_the_end;
    }
    find_rows();
  }

private:
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
    rows_ = text() ? text_rows<KeyTile>(p_.key_grid, p_.text_length) : video_rows<KeyTile>(p_.key_grid, state_.tile);
  }

  const AttentionParameters& p_;
  State state_;
  TileRows<KeyTile> rows_;
};

} // namespace tilewright
