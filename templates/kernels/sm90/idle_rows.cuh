// Query blocks without work: their rows get output 0, or what it is blended with, and log-sum-exp -inf.
#pragma once

#include "kernels/sm90/epilogue.cuh"
#include "kernels/sm90/work.cuh"

namespace tilewright {

/// One warp. Nobody else writes these rows.
TILEWRIGHT_DEVICE void clear_rows(const AttentionParameters& p, const QueryBlock& query) {
  constexpr int chunks = QueryShared::chunks_per_row;
  auto* output =
      static_cast<uint16_t*>(p.output) + query.batch * p.output_strides.batch + query.head * p.output_strides.head;
#pragma unroll 1
  for (int i = lane_index(); i < config::block_q * chunks; i += warp_size) {
    const int row = i / chunks, chunk = i % chunks;
    if (!has_memory(query, row, p.query_grid)) {
      continue;
    }
    Bytes16 result{};
    if constexpr (config::blend) {
      if (p.blend.fine != nullptr) {
        store_global(row_chunk(p.blend.fine, p.blend.fine_strides, query, row, chunk), Bytes16{});
      }
      if (query.valid(row)) {
        result = coarse_chunk(p.blend, query, row, chunk);
      }
    }
    store_global(output + query.token(row) * p.output_strides.token + chunk * QueryShared::chunk_elements, result);
    if (chunk == 0 && p.log_sum_exp != nullptr) {
      store_global(p.log_sum_exp + query.batch * p.log_sum_exp_batch_stride + query.head * p.log_sum_exp_head_stride +
                       query.token(row),
                   negative_infinity());
    }
  }
}

TILEWRIGHT_DEVICE void clear_idle_rows(const KernelArguments& arguments) {
  constexpr int lists = merged ? config::consumers : 1;
  for (WorkList work(arguments.work); !work.done(); work.advance()) {
#pragma unroll 1
    for (int list = 0; list < lists; ++list) {
      const int index = work.query_block(arguments.call.attention, list);
      if (index < 0) {
        continue;
      }
      const QueryBlock query = pattern_query_block(arguments.call, index);
      if (!has_work(arguments, query)) {
        clear_rows(arguments.call.attention, query);
      }
    }
  }
}

} // namespace tilewright
