// Pooling: the mean of each tile's valid tokens, for q, k and v in one launch. Every token is read once, 16 bytes a
// lane; a warp computes one tile of one head, with many loads in flight and nothing in shared memory.
#include "device/math.cuh"
#include "kernels/warp_tile.cuh"

namespace tilewright {

using KernelArguments = PoolArguments;

} // namespace tilewright

TILEWRIGHT_KERNEL(tilewright::threads, tilewright::config::blocks_per_processor)
pool_tiles(TILEWRIGHT_ARGUMENT(tilewright::KernelArguments, arguments)) {
  using namespace tilewright;
  const int number = block_index() * config::warps + warp_index();
  if (number >= arguments.means) {
    return;
  }
  int which = 0, first_number = 0;
  while (number >= arguments.sources[which].end) {
    first_number = arguments.sources[which].end;
    ++which;
  }
  const PoolSource& source = arguments.sources[which];
  const WarpTile tile(number - first_number, source.heads, source.grid, source.sizes, source.size_batch_stride);
  const int chunk = WarpTile::chunk(), first_row = WarpTile::first_row();
  const auto* tokens = static_cast<const uint16_t*>(source.tokens) + tile.batch * source.strides.batch +
                       tile.head * source.strides.head + chunk * chunk_elements;
  float sum[chunk_elements] = {};
#pragma unroll 8 // loads in flight
  for (int pass = 0; pass < QueryTile::tokens / rows_per_pass; ++pass) {
    const int row = first_row + pass * rows_per_pass;
    Bytes16 bytes{};
    if (tile.rows.contains(row)) {
      bytes = load_constant_bytes(tokens + tile.rows.token(row) * source.strides.token);
    }
#pragma unroll
    for (int word = 0; word < chunk_elements / 2; ++word) {
      sum[2 * word] += unpack_low<Element>(bytes.words[word]);
      sum[2 * word + 1] += unpack_high<Element>(bytes.words[word]);
    }
  }
  const float divisor = static_cast<float>(maximum(tile.count, 1)); // the mean of no tokens is 0
  Bytes16 mean;
#pragma unroll
  for (int i = 0; i < chunk_elements; ++i) {
#pragma unroll
    for (int mask = chunks_per_row; mask < warp_size; mask *= 2) {
      sum[i] += shuffle_xor(sum[i], mask);
    }
    sum[i] = divide(sum[i], divisor);
  }
#pragma unroll
  for (int word = 0; word < chunk_elements / 2; ++word) {
    mean.words[word] = pack<Element>(sum[2 * word], sum[2 * word + 1]);
  }
  if (first_row == 0) {
    store_global(static_cast<uint16_t*>(source.means) + tile.row * config::head_dim + chunk * chunk_elements, mean);
  }
}
