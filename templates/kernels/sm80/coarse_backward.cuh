// What the two kernels of the coarse attention's gradient share: the means' rows, and which key tiles take part, and
// the tokens' shares.
#pragma once

#include "kernels/sm80/backward.cuh"
#include "kernels/tile_parameters.cuh"

namespace tilewright {

using KernelArguments = CoarseBackwardArguments;

static_assert(config::block_q % step_rows == 0 && config::block_k % step_rows == 0, "blocks are whole steps");

/// A head's means, [tiles, head_dim], of which there are `sequence` before it.
TILEWRIGHT_DEVICE const uint16_t* means_of(const void* means, int64_t sequence, int tiles) {
  return static_cast<const uint16_t*>(means) + sequence * tiles * config::head_dim;
}

/// Rows first .. first + Shared::rows - 1 of a head's means; those that do not exist become zeros.
template <class Shared> TILEWRIGHT_DEVICE void load_means(Shared shared, const uint16_t* means, int first, int tiles) {
  load_rows(
      shared, means, config::head_dim, [&](int row) { return first + row < tiles; },
      [&](int row) { return static_cast<int64_t>(first + row); });
}

/// Valid tokens of a tile that exists.
TILEWRIGHT_DEVICE int count_of(const TileCounts& counts, int batch, int tile) {
  if (counts.sizes != nullptr) {
    return load_constant(counts.sizes + batch * counts.size_batch_stride + tile);
  }
  const TokenGrid& grid = counts.grid;
  const auto in_tile = [](int tokens, int tile_tokens, int number) {
    const int left = tokens - number * tile_tokens;
    return left < tile_tokens ? left : tile_tokens;
  };
  const int plane = tile / grid.tiles_w;
  return in_tile(grid.t, counts.tile_t, plane / grid.tiles_h) * in_tile(grid.h, counts.tile_h, plane % grid.tiles_h) *
         in_tile(grid.w, counts.tile_w, tile % grid.tiles_w);
}

/// Whether a key tile exists and holds a token.
TILEWRIGHT_DEVICE bool takes_part(const CoarseBackwardArguments& p, int batch, int key) {
  return key < p.key_tiles && (p.key_counts.sizes == nullptr || count_of(p.key_counts, batch, key) > 0);
}

/// Each tile's share of factor * sums, in float32, for the warp's 16 tiles from first_tile on, those that exist.
/// shares: of the tiles' head.
TILEWRIGHT_DEVICE void store_shares(const Gradient<1>& sums, float factor, float* shares, const TileCounts& counts,
                                    int batch, int first_tile, int tiles, int lane) {
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    const int tile = first_tile + 8 * half + lane / 4;
    if (tile < tiles) {
      const int count = count_of(counts, batch, tile);
      const float share = divide(factor, static_cast<float>(count > 0 ? count : 1)); // nobody asks for an empty tile's
#pragma unroll
      for (int column = 0; column < gradient_columns; ++column) {
        float* place = shares + static_cast<int64_t>(tile) * config::head_dim + column * 8 + lane % 4 * 2;
        store_global(place, sums[0][column][2 * half] * share);
        store_global(place + 1, sums[0][column][2 * half + 1] * share);
      }
    }
  }
}

} // namespace tilewright
