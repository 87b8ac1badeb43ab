// What the two kernels of the coarse attention's gradient share: the means' rows, and which key tiles take part.
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

/// Whether a key tile exists and holds a token.
TILEWRIGHT_DEVICE bool takes_part(const CoarseBackwardArguments& p, int batch, int key) {
  return key < p.key_tiles &&
         (p.key_sizes == nullptr || load_constant(p.key_sizes + batch * p.key_size_batch_stride + key) > 0);
}

/// factor * sums of the warp's 16 rows in float32, those that exist. rows: a head's, from the warp's first on.
TILEWRIGHT_DEVICE void store_sums(const Gradient<1>& sums, float factor, float* rows, int existing, int lane) {
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    const int row = 8 * half + lane / 4;
    if (row < existing) {
#pragma unroll
      for (int column = 0; column < gradient_columns; ++column) {
        float* place = rows + row * config::head_dim + column * 8 + lane % 4 * 2;
        store_global(place, sums[0][column][2 * half] * factor);
        store_global(place + 1, sums[0][column][2 * half + 1] * factor);
      }
    }
  }
}

} // namespace tilewright
