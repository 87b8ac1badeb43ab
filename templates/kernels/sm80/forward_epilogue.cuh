// The end of a query block: its rows divided by their sums, blended where the problem asks for it, and written.
#pragma once

#include "kernels/sm80/forward_rows.cuh"

#include "kernels/blend.cuh"

namespace tilewright {

/// Divides the warp's rows by their sums, which are left in the state.
TILEWRIGHT_DEVICE void normalise(RowState& state) {
#pragma unroll
  for (int group = 0; group < row_groups; ++group) {
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      float& sum = state.sum[group][half];
      sum += shuffle_xor(sum, 1);
      sum += shuffle_xor(sum, 2);
      const float inverse = state.has_keys(group, half) ? reciprocal(sum) : 0.f;
#pragma unroll
      for (int column = 0; column < output_columns; ++column) {
        state.output[group][column][2 * half] *= inverse;
        state.output[group][column][2 * half + 1] *= inverse;
      }
    }
  }
}

/// The warp's rows into its own part of the query's shared memory, which nobody else reads. `blend`: the gate stands
/// there already, and the coarse result is added.
template <bool blend>
TILEWRIGHT_DEVICE void stage_output(const RowState& state, QueryShared staging, const float* coarse, int lane) {
#pragma unroll
  for (int column = 0; column < output_columns; ++column) {
#pragma unroll
    for (int group = 0; group < row_groups; ++group) {
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        const float* pair = &state.output[group][column][2 * half];
        const SharedAddress place =
            staging.chunk(16 * group + 8 * half + lane / 4, column) + lane % 4 * sizeof(uint32_t);
        if constexpr (blend) {
          const uint32_t gate = config::blend_gated ? load_shared_word(place) : 0u;
          store_shared(place, blended(pair[0], pair[1], gate, coarse + column * 8 + lane % 4 * 2));
        } else {
          store_shared(place, pack<Element>(pair[0], pair[1]));
        }
      }
    }
  }
  synchronize_warp();
}

TILEWRIGHT_DEVICE void store_log_sum_exp(const RowState& state, const QueryBlock& query, const AttentionParameters& p,
                                         int warp_row, int lane) {
  float* rows = p.log_sum_exp + query.batch * p.log_sum_exp_batch_stride + query.head * p.log_sum_exp_head_stride;
#pragma unroll
  for (int group = 0; group < row_groups; ++group) {
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const int row = warp_row + 16 * group + 8 * half + lane / 4;
      const bool has_keys = query.valid(row) && state.has_keys(group, half);
      const float log2_sum = log2_approximate(state.sum[group][half]) - state.offset[group][half];
      if (lane % 4 == 0 && query.exists(row)) {
        store_global(rows + query.token(row), has_keys ? log2_sum * natural_log_of_2 : negative_infinity());
      }
    }
  }
}

/// Stages and writes the warp's rows. staging: the query's shared memory from warp_row on.
TILEWRIGHT_DEVICE void store_output(const RowState& state, QueryShared staging, const QueryBlock& query,
                                    const AttentionParameters& p, int warp_row, int lane) {
  if constexpr (config::blend) {
    if (p.blend.fine != nullptr) {
      stage_output<false>(state, staging, nullptr, lane);
      store_staged_rows(p.blend.fine, p.blend.fine_strides, staging, query, 0, warp_row, warp_rows);
      synchronize_warp(); // before the gate takes its place
    }
    if constexpr (config::blend_gated) {
      load_gate(staging, p.blend, query, 0, warp_row, warp_rows);
    }
    stage_output<true>(state, staging, coarse_row(p.blend, query), lane);
  } else {
    stage_output<false>(state, staging, nullptr, lane);
  }
  store_staged_rows(p.output, p.output_strides, staging, query, 0, warp_row, warp_rows);
}

} // namespace tilewright
