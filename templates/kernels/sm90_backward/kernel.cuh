// What both backward kernels are besides their consumers: the zeros of rows without work, and the roles.
#pragma once

#include "kernels/sm90_backward/loaders.cuh"
#include "kernels/sm90_backward/products.cuh"

namespace tilewright {

/// Whether a row of the gradients has memory. (A box's store leaves out the others by itself.)
TILEWRIGHT_DEVICE bool has_memory(const OwnBlock& own, int row, const TokenGrid& grid) {
  return config::dense ? own.token(row) < grid.w : own.exists(row);
}

/// Writes the rows of blocks that meet nothing: their share, or zeros. One warp; nobody else writes these rows.
TILEWRIGHT_DEVICE void clear_idle_rows(const KernelArguments& arguments) {
  constexpr int chunks = RowsShared::chunks_per_row;
  for (WorkList work(arguments); !work.done(); work.advance()) {
#pragma unroll 1
    for (int list = 0; list < (merged ? config::consumers : 1); ++list) {
      const int index = work.block(list);
      if (index < 0) {
        continue;
      }
      const OwnBlock own = own_block(arguments, index);
      if (has_work(arguments, own)) {
        continue;
      }
#pragma unroll 1
      for (int i = lane_index(); i < gradients * block_owned * chunks; i += warp_size) {
        const int chunk = i % chunks, row = i / chunks % block_owned, which = i / chunks / block_owned;
        if (has_memory(own, row, own_grid(arguments))) {
          const Strides& strides = gradient_strides(arguments, which);
          const float* share = own_share(arguments, own, which);
          store_global(static_cast<uint16_t*>(gradient_tensor(arguments, which)) + own.batch * strides.batch +
                           own_head(own) * strides.head + own.token(row) * strides.token +
                           chunk * RowsShared::chunk_elements,
                       share != nullptr && own.valid(row) ? share_chunk(share, chunk) : Bytes16{});
        }
      }
    }
  }
}

/// consume: what a computing warpgroup does.
template <class Consume> TILEWRIGHT_DEVICE void run_backward(const KernelArguments& arguments, Consume consume_rows) {
  const Shared shared{shared_memory()};
  if (thread_index() == 0) {
    shared.initialize();
#pragma unroll
    for (int which = 0; which < 2; ++which) {
      prefetch(arguments.video.own[which]);
      prefetch(arguments.video.walked[which]);
      if (which < gradients) {
        prefetch(arguments.video.gradient[which]);
      }
    }
  }
  synchronize_block();

  const int warpgroup = warpgroup_index();
  if (warpgroup == 0) {
    release_registers<config::producer_registers>();
    const int warp = warp_index();
    if (warp == 0) {
      if constexpr (merged) {
        load_merged_rows(arguments, shared);
      } else {
        load_walked_rows(arguments, shared);
      }
    } else if (warp == 1) {
      load_own_rows(arguments, shared);
    } else if (warp == 2 && !always_has_work) {
      clear_idle_rows(arguments);
    }
  } else {
    claim_registers<config::consumer_registers>();
    consume_rows(shared, warpgroup - 1);
  }
}

} // namespace tilewright
