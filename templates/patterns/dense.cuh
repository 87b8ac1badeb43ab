// Dense: every query attends to every key.
#pragma once

#include "patterns/query_block.cuh"
#include "patterns/tile_box.cuh"

namespace tilewright {

using PatternParameters = DenseParameters;

TILEWRIGHT_DEVICE QueryBlock pattern_query_block(const AttentionArguments<PatternParameters>& arguments, int index) {
  return query_block(arguments.attention, index);
}

TILEWRIGHT_DEVICE BoxTiles listed_tiles(const AttentionArguments<PatternParameters>& arguments, const QueryBlock&) {
  return BoxTiles(arguments.attention, whole_canvas(arguments.attention.key_grid));
}

class KeyBlocks : public TileBoxKeys {
public:
  TILEWRIGHT_DEVICE KeyBlocks(const AttentionArguments<PatternParameters>& arguments, const QueryBlock&)
      : TileBoxKeys(arguments.attention, whole_canvas(arguments.attention.key_grid)) {}
  TILEWRIGHT_DEVICE KeyBlocks(const AttentionArguments<PatternParameters>& arguments, const State& state)
      : TileBoxKeys(arguments.attention, state) {}
};

} // namespace tilewright
