// The blocks of a box of tiles, then of the text: what dense and sliding tile attention walk through.
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

/// A query block's key tiles, each by itself: for a warp whose lanes look at many at once. The text counts as the tile
/// behind the video's.
struct BoxTiles {
  TileBox box;
  int tiles_h, tiles_w; // of the canvas
  int text_number;      // -1: no text
  int count;

  TILEWRIGHT_DEVICE BoxTiles(const AttentionParameters& p, const TileBox& box_)
      : box(box_), tiles_h(p.key_grid.tiles_h), tiles_w(p.key_grid.tiles_w),
        text_number(config::text && p.text_length > 0 ? p.key_grid.tiles_t * tiles_h * tiles_w : -1),
        count(extent(box.t) * extent(box.h) * extent(box.w) + (text_number < 0 ? 0 : 1)) {}

  TILEWRIGHT_DEVICE int number(int i) const {
    if (text_number >= 0 && i == count - 1) {
      return text_number;
    }
    const int plane = i / extent(box.w);
    return ((box.t.start + plane / extent(box.h)) * tiles_h + box.h.start + plane % extent(box.h)) * tiles_w +
           box.w.start + i % extent(box.w);
  }
  TILEWRIGHT_DEVICE bool has_keys(int) const { return true; }

private:
  static TILEWRIGHT_DEVICE int extent(const TileRange& range) { return range.end - range.start; }
};

/// Walks the box's tiles in (t, h, w) order in steps of block_rows rows, then the text, leaving out steps without a
/// valid row. grid: of the tiles of this side, queries or keys.
template <class Tile, int block_rows> class TileBoxWalk {
public:
  /// All that distinguishes one step of a walk from another: a plain value.
  struct State {
    TileBox box;
    TileCoordinate tile;
    int first_row;
    enum Where { in_video, in_text, past_the_end } where;
  };
  static TILEWRIGHT_DEVICE State start_of(const TileBox& box) {
    return {box, {box.t.start, box.h.start, box.w.start}, 0, State::in_video};
  }

  TILEWRIGHT_DEVICE TileBoxWalk(const AttentionParameters& p, const TokenGrid& grid, const State& state)
      : p_(p), grid_(grid), state_(state) {
    find_rows();
  }

  TILEWRIGHT_DEVICE const State& state() const { return state_; }
  TILEWRIGHT_DEVICE bool done() const { return state_.where == State::past_the_end; }
  TILEWRIGHT_DEVICE bool text() const { return config::text && state_.where == State::in_text; }
  TILEWRIGHT_DEVICE TileCoordinate tile() const { return state_.tile; }
  /// The step's rows are first_row() .. first_row() + block_rows - 1 of rows().
  TILEWRIGHT_DEVICE int first_row() const { return state_.first_row; }
  TILEWRIGHT_DEVICE const TileRows<Tile>& rows() const { return rows_; }

  TILEWRIGHT_DEVICE void advance() {
    state_.first_row += block_rows;
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

  /// Goes on from another step of the same grid.
  TILEWRIGHT_DEVICE void move_to(const State& state) {
    state_ = state;
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
    rows_ = text() ? text_rows<Tile>(grid_, p_.text_length) : video_rows<Tile>(grid_, state_.tile);
  }

  const AttentionParameters& p_;
  const TokenGrid& grid_;
  State state_;
  TileRows<Tile> rows_;
};

/// A query block's walk through the keys.
class TileBoxKeys : public TileBoxWalk<KeyTile, config::block_k> {
public:
  TILEWRIGHT_DEVICE TileBoxKeys(const AttentionParameters& p, const State& state) : TileBoxWalk(p, p.key_grid, state) {}
  TILEWRIGHT_DEVICE TileBoxKeys(const AttentionParameters& p, const TileBox& box) : TileBoxKeys(p, start_of(box)) {}

  /// The rows of a video tile, given its number: what a walk finds when it meets it.
  template <class Arguments>
  static TILEWRIGHT_DEVICE TileRows<KeyTile> rows_of(const Arguments& arguments, int, int, TileCoordinate tile) {
    return video_rows<KeyTile>(arguments.attention.key_grid, tile);
  }
};

} // namespace tilewright
