// Block lists out of a mask of bytes: a warp lists the key tiles of one query tile, ascending.
#include "device/copy.cuh"
#include "device/warpgroup.cuh"
#include "kernels/tile_parameters.cuh"

#include "config.cuh"

namespace tilewright {

using KernelArguments = MaskArguments;

constexpr int threads = config::warps * warp_size;

} // namespace tilewright

TILEWRIGHT_KERNEL(tilewright::threads, tilewright::config::blocks_per_processor)
list_mask(TILEWRIGHT_ARGUMENT(tilewright::KernelArguments, arguments)) {
  using namespace tilewright;
  const MaskArguments& p = arguments;
  const int row = block_index() * config::warps + warp_index();
  if (row >= p.rows) {
    return;
  }
  const int query = row % p.query_tiles, head = row / p.query_tiles % p.heads, batch = row / p.query_tiles / p.heads;
  const uint8_t* mask = p.mask + batch * p.mask_batch_stride + head * p.mask_head_stride + query * p.mask_tile_stride;
  int32_t* const list = p.indices + static_cast<int64_t>(row) * p.key_tiles;
  const int lane = lane_index();
  int count = 0;
#pragma unroll 4
  for (int first = 0; first < p.key_tiles; first += warp_size) {
    const bool listed = first + lane < p.key_tiles && load_constant(mask + first + lane) != 0;
    const uint32_t all_listed = vote(listed);
    if (listed) {
      store_global(list + count + count_bits(all_listed & ((1u << lane) - 1)), first + lane);
    }
    count += count_bits(all_listed);
  }
  if (lane == 0) {
    store_global(p.counts + row, count);
  }
}
