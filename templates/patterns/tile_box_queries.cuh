// The query blocks of a box of tiles, then of the text, for each query head that shares a key/value head: what dense
// and sliding tile attention walk through backward.
#pragma once

#include "patterns/key_block.cuh"
#include "patterns/tile_box.cuh"

namespace tilewright {

/// Walks head by head. Derived gives the box of a head's query tiles: TileBox box_of(int head) const.
template <class Derived> class TileBoxQueries {
  using HeadWalk = TileBoxWalk<QueryTile, config::block_q>;

public:
  /// All that distinguishes one step of a walk from another: a plain value.
  struct State {
    typename HeadWalk::State in_head;
    int head;      // of the queries
    int heads_end; // one past the last that shares the key/value head
  };

  TILEWRIGHT_DEVICE State state() const { return {walk_.state(), head_, heads_end_}; }
  TILEWRIGHT_DEVICE bool done() const { return walk_.done(); }
  TILEWRIGHT_DEVICE int head() const { return head_; }
  TILEWRIGHT_DEVICE bool text() const { return walk_.text(); }
  TILEWRIGHT_DEVICE TileCoordinate tile() const { return walk_.tile(); }
  /// The step's queries are rows first_row() .. first_row() + config::block_q - 1 of rows().
  TILEWRIGHT_DEVICE int first_row() const { return walk_.first_row(); }
  TILEWRIGHT_DEVICE const TileRows<QueryTile>& rows() const { return walk_.rows(); }
  /// Whether row of the step is a query.
  TILEWRIGHT_DEVICE bool valid(int row) const {
    return rows().contains(first_row() + row) && (!config::dense || first_row() + row < rows().end);
  }
  /// Where the statistics of the step's first row stand within those of its head.
  TILEWRIGHT_DEVICE int statistics_row() const {
    const TokenGrid& grid = p_.query_grid;
    const int first = text() ? statistics_.text_first
                             : ((tile().t * grid.tiles_h + tile().h) * grid.tiles_w + tile().w) * QueryTile::tokens;
    return first + first_row();
  }

  TILEWRIGHT_DEVICE void advance() {
    walk_.advance();
    if (walk_.done() && ++head_ < heads_end_) {
      begin_head();
    }
  }

protected:
  TILEWRIGHT_DEVICE TileBoxQueries(const AttentionParameters& p, const RowStatistics& statistics)
      : p_(p), statistics_(statistics), walk_(p, p.query_grid, {}) {}

  TILEWRIGHT_DEVICE void begin(const KeyBlock& key) {
    head_ = key.head * p_.heads_per_kv_head;
    heads_end_ = head_ + p_.heads_per_kv_head;
    begin_head();
    if (!key.any_valid()) {
      typename HeadWalk::State nothing = walk_.state();
      nothing.where = HeadWalk::State::past_the_end;
      walk_.move_to(nothing);
    }
  }
  TILEWRIGHT_DEVICE void resume(const State& state) {
    head_ = state.head;
    heads_end_ = state.heads_end;
    walk_.move_to(state.in_head);
  }

private:
  TILEWRIGHT_DEVICE void begin_head() {
    walk_.move_to(HeadWalk::start_of(static_cast<const Derived*>(this)->box_of(head_)));
  }

  const AttentionParameters& p_;
  const RowStatistics& statistics_;
  HeadWalk walk_;
  int head_ = 0, heads_end_ = 0;
};

} // namespace tilewright
