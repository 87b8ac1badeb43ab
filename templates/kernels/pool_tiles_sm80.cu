// Pooling: the mean of each tile's valid tokens, for q, k and v in one launch. Every token is read once, 16 bytes a
// lane; a warp computes one tile of one head, with many loads in flight and nothing in shared memory.
#include "patterns/geometry.cuh"

#include "device/element.cuh"
#include "device/math.cuh"
#include "kernels/tile_parameters.cuh"

namespace tilewright {

using Element = config::Element;
using KernelArguments = PoolArguments;

constexpr int threads = config::warps * warp_size;
constexpr int chunk_elements = 8; // of 16 bytes
constexpr int chunks_per_row = config::head_dim / chunk_elements;
constexpr int rows_per_pass = warp_size / chunks_per_row;
static_assert(QueryTile::tokens % rows_per_pass == 0, "a warp reads whole rows");

/// Which mean of a source a number stands for.
struct MeanPlace {
  int batch, head, tile;

  TILEWRIGHT_DEVICE MeanPlace(int number, int heads, int tiles) {
    // What runs at the same time lies close together in memory: the heads of a token, or the tiles of a head.
    if constexpr (config::layout_tiled) {
      tile = number % tiles;
      head = number / tiles % heads;
    } else {
      head = number % heads;
      tile = number / heads % tiles;
    }
    batch = number / heads / tiles;
  }
};

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
  const int tiles = source.grid.tiles_t * source.grid.tiles_h * source.grid.tiles_w;
  const MeanPlace place(number - first_number, source.heads, tiles);
  int size = -1; // from the canvas
  if constexpr (config::edges_sized) {
    if (source.sizes != nullptr) {
      size = load_constant(source.sizes + place.batch * source.size_batch_stride + place.tile);
    }
  }
  const TileRows<QueryTile> rows = video_rows<QueryTile>(source.grid, tile_coordinate(source.grid, place.tile), size);
  const int count = config::layout_tiled ? rows.end : rows.extent_t * rows.extent_h * rows.extent_w;

  const int lane = lane_index(), chunk = lane % chunks_per_row, first_row = lane / chunks_per_row;
  const auto* tokens = static_cast<const uint16_t*>(source.tokens) + place.batch * source.strides.batch +
                       place.head * source.strides.head + chunk * chunk_elements;
  float sum[chunk_elements] = {};
#pragma unroll 8 // loads in flight
  for (int pass = 0; pass < QueryTile::tokens / rows_per_pass; ++pass) {
    const int row = first_row + pass * rows_per_pass;
    Bytes16 bytes{};
    if (rows.contains(row)) {
      bytes = load_constant_bytes(tokens + rows.token(row) * source.strides.token);
    }
#pragma unroll
    for (int word = 0; word < chunk_elements / 2; ++word) {
      sum[2 * word] += unpack_low<Element>(bytes.words[word]);
      sum[2 * word + 1] += unpack_high<Element>(bytes.words[word]);
    }
  }
  const float divisor = static_cast<float>(maximum(count, 1)); // the mean of no tokens is 0
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
    const int64_t index = (static_cast<int64_t>(place.batch) * source.heads + place.head) * tiles + place.tile;
    store_global(static_cast<uint16_t*>(source.means) + index * config::head_dim + chunk * chunk_elements, mean);
  }
}
