// Pooling's gradient: each valid token of a tile gets the gradient of the tile's mean, divided by their number, added
// to the gradient that it has already. For q, k and v in one launch; every token is read and written once.
#include "device/math.cuh"
#include "kernels/warp_tile.cuh"

namespace tilewright {

using KernelArguments = PoolBackwardArguments;

constexpr int passes_in_flight = 8;
static_assert(QueryTile::tokens % (rows_per_pass * passes_in_flight) == 0, "rounds of passes are whole");

/// The sum of a token's gradient and its share, rounded.
TILEWRIGHT_DEVICE Bytes16 sum_of(const Bytes16& gradient, const float (&share)[chunk_elements]) {
  Bytes16 sum;
#pragma unroll
  for (int word = 0; word < chunk_elements / 2; ++word) {
    sum.words[word] = pack<Element>(unpack_low<Element>(gradient.words[word]) + share[2 * word],
                                    unpack_high<Element>(gradient.words[word]) + share[2 * word + 1]);
  }
  return sum;
}

} // namespace tilewright

TILEWRIGHT_KERNEL(tilewright::threads, tilewright::config::blocks_per_processor)
pool_backward(TILEWRIGHT_ARGUMENT(tilewright::KernelArguments, arguments)) {
  using namespace tilewright;
  const int number = block_index() * config::warps + warp_index();
  if (number >= arguments.means) {
    return;
  }
  int which = 0, first_number = 0;
  while (number >= arguments.gradients[which].end) {
    first_number = arguments.gradients[which].end;
    ++which;
  }
  const MeanGradients& p = arguments.gradients[which];
  const WarpTile tile(number - first_number, p.heads, p.grid, p.sizes, p.size_batch_stride);
  const int chunk = WarpTile::chunk(), first_row = WarpTile::first_row();
  const float* mean = p.means + tile.row * config::head_dim + chunk * chunk_elements;
  const float divisor = static_cast<float>(maximum(tile.count, 1)); // nobody gets a share of an empty tile's
  float share[chunk_elements];
#pragma unroll
  for (int i = 0; i < chunk_elements; ++i) {
    share[i] = divide(load_constant(mean + i), divisor);
  }
  auto* tokens = static_cast<uint16_t*>(p.tokens) + tile.batch * p.strides.batch + tile.head * p.strides.head +
                 chunk * chunk_elements;
#pragma unroll 1
  for (int first_pass = 0; first_pass < QueryTile::tokens / rows_per_pass; first_pass += passes_in_flight) {
    Bytes16 gradients[passes_in_flight];
#pragma unroll
    for (int pass = 0; pass < passes_in_flight; ++pass) {
      const int row = first_row + (first_pass + pass) * rows_per_pass;
      if (tile.rows.contains(row)) {
        gradients[pass] = load_global_bytes(tokens + tile.rows.token(row) * p.strides.token);
      }
    }
#pragma unroll
    for (int pass = 0; pass < passes_in_flight; ++pass) {
      const int row = first_row + (first_pass + pass) * rows_per_pass;
      if (tile.rows.contains(row)) {
        store_global(tokens + tile.rows.token(row) * p.strides.token, sum_of(gradients[pass], share));
      }
    }
  }
}
