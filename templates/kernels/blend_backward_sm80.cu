// The gradients of out = fine + gate * coarse with respect to gate and coarse, and the coarse attention's row
// statistics. A warp computes one query tile of one head; its tokens share the row of coarse, whose gradient is their
// sum. fine's gradient is out's.
#include "device/math.cuh"
#include "kernels/warp_tile.cuh"

namespace tilewright {

using KernelArguments = BlendBackwardArguments;

constexpr int passes_in_flight = 4;
static_assert(QueryTile::tokens % (rows_per_pass * passes_in_flight) == 0, "rounds of passes are whole");
constexpr float log2_of_e = 1.44269504088896341f;

/// The tile's statistics; and, behind a head's last tile, those of the rows that fill it up.
TILEWRIGHT_DEVICE void store_statistics(const CoarseStatistics& statistics, const WarpTile& tile, int heads, int tiles,
                                        float log_sum_exp, float delta) {
  const int64_t first = (static_cast<int64_t>(tile.batch) * heads + tile.head) * statistics.rows;
  if (lane_index() == 0) {
    // Where every key tile is empty the LSE is -inf, which must not become an exponent of +inf.
    const float exponent = log_sum_exp == negative_infinity() ? log_sum_exp : log_sum_exp * -log2_of_e;
    store_global(statistics.exponents + first + tile.tile, exponent);
    store_global(statistics.deltas + first + tile.tile, delta);
  }
  if (tile.tile == tiles - 1) {
    for (int row = tiles + lane_index(); row < statistics.rows; row += warp_size) {
      store_global(statistics.exponents + first + row, negative_infinity());
      store_global(statistics.deltas + first + row, 0.f);
    }
  }
}

/// The lane's columns of one head of a 16-bit tensor.
TILEWRIGHT_DEVICE int64_t head_offset(const WarpTile& tile, const Strides& strides) {
  return tile.batch * strides.batch + tile.head * strides.head + WarpTile::chunk() * chunk_elements;
}

/// The sum over the lanes whose numbers differ in bits from `from` on, below `to`.
template <int from, int to> TILEWRIGHT_DEVICE float sum_of_lanes(float value) {
#pragma unroll
  for (int mask = from; mask < to; mask *= 2) {
    value += shuffle_xor(value, mask);
  }
  return value;
}

} // namespace tilewright

TILEWRIGHT_KERNEL(tilewright::threads, tilewright::config::blocks_per_processor)
blend_backward(TILEWRIGHT_ARGUMENT(tilewright::KernelArguments, arguments)) {
  using namespace tilewright;
  const BlendBackwardArguments& p = arguments;
  const int number = block_index() * config::warps + warp_index();
  if (number >= p.rows) {
    return;
  }
  const WarpTile tile(number, p.heads, p.grid, p.sizes, p.size_batch_stride);
  const int chunk = WarpTile::chunk(), first_row = WarpTile::first_row();
  const int64_t coarse_at = tile.row * config::head_dim + chunk * chunk_elements;
  float coarse[chunk_elements], sum[chunk_elements] = {};
#pragma unroll
  for (int i = 0; i < chunk_elements; ++i) {
    coarse[i] = load_constant(p.coarse_output + coarse_at + i);
  }
  const auto* output_gradient =
      static_cast<const uint16_t*>(p.output_gradient) + head_offset(tile, p.output_gradient_strides);
  const auto* gate = static_cast<const uint16_t*>(p.gate);
  auto* gate_gradient = static_cast<uint16_t*>(p.gate_gradient);
  const int64_t gate_at = head_offset(tile, p.gate_strides);
  const int64_t gate_gradient_at = head_offset(tile, p.gate_gradient_strides);
#pragma unroll 1
  for (int first_pass = 0; first_pass < QueryTile::tokens / rows_per_pass; first_pass += passes_in_flight) {
    Bytes16 gradients[passes_in_flight] = {}, gates[passes_in_flight] = {};
#pragma unroll
    for (int pass = 0; pass < passes_in_flight; ++pass) {
      const int row = first_row + (first_pass + pass) * rows_per_pass;
      if (tile.rows.contains(row)) {
        gradients[pass] = load_constant_bytes(output_gradient + tile.rows.token(row) * p.output_gradient_strides.token);
        if constexpr (config::blend_gated) {
          gates[pass] = load_constant_bytes(gate + gate_at + tile.rows.token(row) * p.gate_strides.token);
        }
      }
    }
#pragma unroll
    for (int pass = 0; pass < passes_in_flight; ++pass) {
      Bytes16 of_gate{};
#pragma unroll
      for (int word = 0; word < chunk_elements / 2; ++word) {
        const float low = unpack_low<Element>(gradients[pass].words[word]);
        const float high = unpack_high<Element>(gradients[pass].words[word]);
        if constexpr (config::blend_gated) {
          of_gate.words[word] = pack<Element>(low * coarse[2 * word], high * coarse[2 * word + 1]);
          sum[2 * word] = fused_multiply_add(low, unpack_low<Element>(gates[pass].words[word]), sum[2 * word]);
          sum[2 * word + 1] =
              fused_multiply_add(high, unpack_high<Element>(gates[pass].words[word]), sum[2 * word + 1]);
        } else {
          sum[2 * word] += low;
          sum[2 * word + 1] += high;
        }
      }
      const int row = first_row + (first_pass + pass) * rows_per_pass;
      const bool contained = tile.rows.contains(row);
      // The tiled layout has rows of padding: their gradient is 0.
      if (config::blend_gated && p.gate_gradient != nullptr && (config::layout_tiled || contained)) {
        store_global(gate_gradient + gate_gradient_at + tile.rows.token(row) * p.gate_gradient_strides.token,
                     contained ? of_gate : Bytes16{});
      }
    }
  }
  Bytes16 gradient;
  float delta = 0.f;
#pragma unroll
  for (int word = 0; word < chunk_elements / 2; ++word) {
    const float low = sum_of_lanes<chunks_per_row, warp_size>(sum[2 * word]) * p.factor;
    const float high = sum_of_lanes<chunks_per_row, warp_size>(sum[2 * word + 1]) * p.factor;
    gradient.words[word] = pack<Element>(low, high);
    // Of the rounded gradient, which the probabilities' gradients are made of, too.
    delta = fused_multiply_add(unpack_low<Element>(gradient.words[word]), coarse[2 * word], delta);
    delta = fused_multiply_add(unpack_high<Element>(gradient.words[word]), coarse[2 * word + 1], delta);
  }
  delta = sum_of_lanes<1, chunks_per_row>(delta);
  if (first_row == 0) {
    store_global(static_cast<uint16_t*>(p.coarse_gradient) + coarse_at, gradient);
  }
  store_statistics(p.statistics, tile, p.heads, p.grid.tiles_t * p.grid.tiles_h * p.grid.tiles_w,
                   load_constant(p.log_sum_exp + tile.row), delta);
}
