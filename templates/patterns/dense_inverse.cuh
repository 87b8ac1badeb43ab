// Dense, seen from the keys: every query attends to every key.
#pragma once

#include "patterns/dense.cuh"
#include "patterns/tile_box_queries.cuh"

namespace tilewright {

using BackwardArguments = AttentionBackwardArguments<PatternParameters>;

TILEWRIGHT_DEVICE KeyBlock pattern_key_block(const BackwardArguments& arguments, int index) {
  return key_block(arguments.call.attention, arguments.backward.key_blocks, index);
}

class QueryBlocks : public TileBoxQueries<QueryBlocks> {
public:
  TILEWRIGHT_DEVICE QueryBlocks(const BackwardArguments& arguments, const KeyBlock& key)
      : TileBoxQueries(arguments.call.attention, arguments.backward.statistics),
        grid_(arguments.call.attention.query_grid) {
    begin(key);
  }
  /// state: of a walk from the same key block.
  TILEWRIGHT_DEVICE QueryBlocks(const BackwardArguments& arguments, const KeyBlock&, const State& state)
      : TileBoxQueries(arguments.call.attention, arguments.backward.statistics),
        grid_(arguments.call.attention.query_grid) {
    resume(state);
  }

  TILEWRIGHT_DEVICE TileBox box_of(int) const { return whole_canvas(grid_); }

private:
  const TokenGrid& grid_;
};

} // namespace tilewright
