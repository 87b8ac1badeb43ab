// Which key rows a thread block computes the gradients of.
#pragma once

#include "kernels/attention_backward_parameters.cuh"
#include "patterns/row_block.cuh"

namespace tilewright {

using KeyBlock = RowBlock<KeyTile>;

TILEWRIGHT_DEVICE KeyBlock key_block(const AttentionParameters& p, int key_blocks, int index, TileSizes sizes = {}) {
  return row_block<KeyTile, config::block_k>(p, p.key_grid, key_blocks, p.heads / p.heads_per_kv_head, index, sizes);
}

} // namespace tilewright
