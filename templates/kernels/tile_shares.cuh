// What the rows of a tile get in addition to their own gradients: the epilogues of attention's backward kernels.
#pragma once

#include "config.cuh"
#include "device/copy.cuh"
#include "kernels/attention_backward_parameters.cuh"

namespace tilewright {

template <class PatternParameters> constexpr bool has_shares = false;
template <> constexpr bool has_shares<BlockListParameters> = true;

/// The share of a block's rows, [head_dim]; nullptr: there is none. Block: RowBlock. heads, grid: of its side.
template <class PatternParameters, class Block>
TILEWRIGHT_DEVICE const float* share_of(const float* shares, const Block& block, int heads, const TokenGrid& grid) {
  if (!has_shares<PatternParameters> || shares == nullptr) {
    return nullptr;
  }
  const int tiles = grid.tiles_t * grid.tiles_h * grid.tiles_w;
  const int64_t sequence = static_cast<int64_t>(block.batch) * heads + block.head;
  return shares + (sequence * tiles + block.tile) * config::head_dim;
}

/// Two neighbouring columns of a share, the first of which is even; 0 where there is none.
TILEWRIGHT_DEVICE FloatPair share_columns(const float* share, int column) {
  return share == nullptr ? FloatPair{0.f, 0.f}
                          : FloatPair{load_constant(share + column), load_constant(share + column + 1)};
}

/// Eight columns as elements.
TILEWRIGHT_DEVICE Bytes16 share_chunk(const float* share, int chunk) {
  Bytes16 packed;
#pragma unroll
  for (int word = 0; word < copy_bytes / 4; ++word) {
    const FloatPair pair = share_columns(share, chunk * copy_bytes / element_bytes + 2 * word);
    packed.words[word] = pack<config::Element>(pair.first, pair.second);
  }
  return packed;
}

} // namespace tilewright
