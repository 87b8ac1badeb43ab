// From a consumer's registers to the output tensor: normalise, write the log-sum-exp, store the rows as a box.
#pragma once

#include "device/matrix.cuh"
#include "kernels/blend.cuh"
#include "kernels/sm90/boxes.cuh"
#include "kernels/sm90/softmax.cuh"

namespace tilewright {

TILEWRIGHT_DEVICE void synchronize_consumer(int consumer) { synchronize_threads(1 + consumer, warpgroup_size); }

/// Whether a row of the output has memory. (The box's store leaves out the others by itself.)
TILEWRIGHT_DEVICE bool has_memory(const QueryBlock& query, int row, const TokenGrid& grid) {
  if constexpr (config::dense) {
    return query.token(row) < grid.w;
  } else {
    return query.exists(row);
  }
}

/// The consumer's rows pass through its own query's shared memory, which is then handed back.
TILEWRIGHT_DEVICE void store_result(const KernelArguments& arguments, const Shared& shared, RowState& state,
                                    const OwnRows<Shared>& own_rows, int consumer) {
  // Derived anew: kept, what this needs would hold registers around the main loop.
  const int thread = opaque(thread_index()) % warpgroup_size;
  const int lane = thread % warp_size, warp = thread / warp_size;
  const AttentionParameters& p = arguments.call.attention;
  const QueryBlock query = pattern_query_block(arguments.call, own_rows.block());
  const int first_row = merged ? 0 : consumer * consumer_rows;
  const QueryShared staging = shared.query(consumer);

  float inverse[2];
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    const int row = first_row + warp * 16 + half * 8 + lane / 4;
    float sum = state.sum[half];
    sum += shuffle_xor(sum, 1);
    sum += shuffle_xor(sum, 2);
    const bool valid = query.valid(row);
    inverse[half] = valid ? reciprocal(sum) : 0.f;
    if (p.log_sum_exp != nullptr && lane % 4 == 0 && has_memory(query, row, p.query_grid)) {
      const float log2_sum = state.reference[half] + log2_approximate(sum);
      store_global(p.log_sum_exp + query.batch * p.log_sum_exp_batch_stride + query.head * p.log_sum_exp_head_stride +
                       query.token(row),
                   valid ? log2_sum * natural_log_of_2 : negative_infinity());
    }
  }

  // A padding row's output may be NaN by now, so it is replaced, not multiplied by 0.
  const auto normalised = [&](int i) {
    const float factor = inverse[i / 2 % 2];
    return TileRows<QueryTile>::has_prefix && factor == 0.f ? 0.f : state.output[i] * factor;
  };
  const int row = warp * 16 + lane % 16; // store_matrices: lanes give the addresses of rows, 8 for each matrix
  const auto stage_output = [&] {
#pragma unroll
    for (int column = 0; column < output_registers; column += 8) { // registers: 16 columns of two rows
      const int chunk = column / 4 + lane / 16;
      store_matrices(staging.chunk(row, chunk), pack<Element>(normalised(column), normalised(column + 1)),
                     pack<Element>(normalised(column + 2), normalised(column + 3)),
                     pack<Element>(normalised(column + 4), normalised(column + 5)),
                     pack<Element>(normalised(column + 6), normalised(column + 7)));
    }
  };
  if constexpr (config::blend) {
    if (p.blend.fine != nullptr) {
      stage_output();
      synchronize_warp();
      store_staged_rows(p.blend.fine, p.blend.fine_strides, staging, query, warp * 16, first_row + warp * 16, 16);
      synchronize_warp(); // before the gate takes its place
    }
    if constexpr (config::blend_gated) {
      load_gate(staging, p.blend, query, warp * 16, first_row + warp * 16, 16);
    }
    const float* coarse = coarse_row(p.blend, query) + lane % 4 * 2;
#pragma unroll
    for (int column = 0; column < output_registers; column += 8) {
      const int chunk = column / 4 + lane / 16;
      uint32_t gate[4] = {}, pairs[4];
      if constexpr (config::blend_gated) {
        load_matrices(gate, staging.chunk(row, chunk));
        synchronize_warp(); // all have read what is written over
      }
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        const bool padding = TileRows<QueryTile>::has_prefix && inverse[i % 2] == 0.f;
        const uint32_t pair = blended(normalised(column + 2 * i), normalised(column + 2 * i + 1), gate[i],
                                      coarse + (column / 4 + i / 2) * 8);
        pairs[i] = padding ? 0u : pair;
      }
      store_matrices(staging.chunk(row, chunk), pairs[0], pairs[1], pairs[2], pairs[3]);
    }
  } else {
    stage_output();
  }
  fence_shared_for_copies();
  synchronize_consumer(consumer);
  if (thread == 0) {
    const HeadBoxes boxes(arguments.video.output, arguments.text.output, arguments.output_heads, query.batch,
                          query.head);
    const BoxOrigin origin = boxes.origin(query.text, query.position, query.rows, query.first_row + first_row);
#pragma unroll
    for (int panel = 0; panel < panels; ++panel) {
      copy_box_to_global(boxes.map(query.text), shifted(origin, panel * QueryShared::panel_columns),
                         staging.base + panel * QueryShared::panel_bytes);
    }
    commit_box_copies();
    wait_for_box_sources();
    own_rows.hand_back();
  }
}

} // namespace tilewright
