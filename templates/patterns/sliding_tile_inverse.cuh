// Sliding tile attention, seen from the keys: a video key is seen by the query tiles whose window holds its tile, which
// form one box, and by the text; a text key by everything.
#pragma once

#include "patterns/sliding_tile.cuh"
#include "patterns/tile_box_queries.cuh"

namespace tilewright {

using BackwardArguments = AttentionBackwardArguments<PatternParameters>;

TILEWRIGHT_DEVICE KeyBlock pattern_key_block(const BackwardArguments& arguments, int index) {
  return key_block(arguments.call.attention, arguments.backward.key_blocks, index);
}

/// The tiles that see key tile k along an axis of n tiles: the inverse of window_range. The windows of the first
/// window / 2 + 1 query tiles begin at 0, those of the last as many at n - width.
TILEWRIGHT_DEVICE TileRange seen_by_range(int k, int window, int n) {
  const int half = window / 2;
  const int width = minimum(2 * half + 1, n);
  return {k < width ? 0 : k - half, k >= n - width ? n : k + half + 1};
}

class QueryBlocks : public TileBoxQueries<QueryBlocks> {
public:
  TILEWRIGHT_DEVICE QueryBlocks(const BackwardArguments& arguments, const KeyBlock& key)
      : TileBoxQueries(arguments.call.attention, arguments.backward.statistics), call_(arguments.call), key_(key) {
    begin(key);
  }
  /// state: of a walk from the same key block.
  TILEWRIGHT_DEVICE QueryBlocks(const BackwardArguments& arguments, const KeyBlock& key, const State& state)
      : TileBoxQueries(arguments.call.attention, arguments.backward.statistics), call_(arguments.call), key_(key) {
    resume(state);
  }

  TILEWRIGHT_DEVICE TileBox box_of(int head) const {
    const TokenGrid& grid = call_.attention.query_grid;
    if (key_.text) {
      return whole_canvas(grid);
    }
    int window_t = config::window_t, window_h = config::window_h, window_w = config::window_w;
    if constexpr (config::window_per_head) {
      const auto& window = call_.pattern.windows[head];
      window_t = window[0];
      window_h = window[1];
      window_w = window[2];
    }
    return {seen_by_range(key_.position.t, window_t, grid.tiles_t),
            seen_by_range(key_.position.h, window_h, grid.tiles_h),
            seen_by_range(key_.position.w, window_w, grid.tiles_w)};
  }

private:
  const AttentionArguments<PatternParameters>& call_;
  const KeyBlock& key_;
};

} // namespace tilewright
