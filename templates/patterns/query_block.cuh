// Which query rows a thread block computes.
#pragma once

#include "patterns/row_block.cuh"

namespace tilewright {

using QueryBlock = RowBlock<QueryTile>;

TILEWRIGHT_DEVICE QueryBlock query_block(const AttentionParameters& p, int index, TileSizes sizes = {}) {
  return row_block<QueryTile, config::block_q>(p, p.query_grid, p.query_blocks, p.heads, index, sizes);
}

} // namespace tilewright
