// Sliding tile attention (STA, arXiv 2502.04507): a video query attends to the window of tiles around its own, slid
// inward at the canvas's edges, and to the text; a text query attends to everything.
#pragma once

#include "patterns/query_block.cuh"
#include "patterns/tile_box.cuh"

namespace tilewright {

using PatternParameters = SlidingTileParameters;

TILEWRIGHT_DEVICE QueryBlock pattern_query_block(const AttentionArguments<PatternParameters>& arguments, int index) {
  return query_block(arguments.attention, index);
}

/// The tiles that query tile q sees along an axis of n tiles; an even window acts as the next odd one.
TILEWRIGHT_DEVICE TileRange window_range(int q, int window, int n) {
  const int half = window / 2;
  const int width = minimum(2 * half + 1, n);
  const int start = maximum(minimum(q - half, n - width), 0);
  return {start, start + width};
}

TILEWRIGHT_DEVICE TileBox window_box(const AttentionArguments<PatternParameters>& arguments, const QueryBlock& query) {
  const TokenGrid& grid = arguments.attention.key_grid;
  if (query.text) {
    return whole_canvas(grid);
  }
  int window_t = config::window_t, window_h = config::window_h, window_w = config::window_w;
  if constexpr (config::window_per_head) {
    const auto& window = arguments.pattern.windows[query.head];
    window_t = window[0];
    window_h = window[1];
    window_w = window[2];
  }
  return {window_range(query.position.t, window_t, grid.tiles_t),
          window_range(query.position.h, window_h, grid.tiles_h),
          window_range(query.position.w, window_w, grid.tiles_w)};
}

TILEWRIGHT_DEVICE BoxTiles listed_tiles(const AttentionArguments<PatternParameters>& arguments,
                                        const QueryBlock& query) {
  return BoxTiles(arguments.attention, window_box(arguments, query));
}

class KeyBlocks : public TileBoxKeys {
public:
  TILEWRIGHT_DEVICE KeyBlocks(const AttentionArguments<PatternParameters>& arguments, const QueryBlock& query)
      : TileBoxKeys(arguments.attention, window_box(arguments, query)) {}
  TILEWRIGHT_DEVICE KeyBlocks(const AttentionArguments<PatternParameters>& arguments, const State& state)
      : TileBoxKeys(arguments.attention, state) {}
};

} // namespace tilewright
