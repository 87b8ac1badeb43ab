// Attention forward for Hopper (sm_90a): TMA, mbarriers, wgmma. A thread block stays on its multiprocessor and computes
// one item after the other. Its first warpgroup loads: queries, and keys and values through a ring of config::stages
// shared-memory stages; it also writes the zeros of rows that attend to nothing. The others compute 64 query rows each:
// scores = Q K^T, softmax, output += P V.
//
// Reading order: sm90/shared_memory.cuh (what they share), work.cuh (which items), loaders.cuh, merged_lists.cuh,
// consumer.cuh (the main loop), softmax.cuh, epilogue.cuh.
#include "pattern.cuh"

#include "device/cluster.cuh"
#include "kernels/sm90/consumer.cuh"
#include "kernels/sm90/idle_rows.cuh"
#include "kernels/sm90/loaders.cuh"
#include "kernels/sm90/merged_lists.cuh"

namespace tilewright {

TILEWRIGHT_DEVICE void prefetch_maps(const TensorMaps& maps) {
  prefetch(maps.query);
  prefetch(maps.key);
  prefetch(maps.value);
  prefetch(maps.output);
}

} // namespace tilewright

TILEWRIGHT_KERNEL(tilewright::threads, tilewright::config::blocks_per_processor)
attention_forward(TILEWRIGHT_ARGUMENT(tilewright::KernelArguments, arguments)) {
  using namespace tilewright;
  const Shared shared{shared_memory()};
  if (thread_index() == 0) {
    shared.initialize();
    prefetch_maps(arguments.video);
    if constexpr (config::text) {
      prefetch_maps(arguments.text);
    }
  }
  if constexpr (config::cluster == 1) {
    synchronize_block();
  } else {
    synchronize_cluster();
  }

  const int warpgroup = warpgroup_index();
  if (warpgroup == 0) {
    release_registers<config::producer_registers>();
    const int warp = warp_index();
    if (warp == 0) {
      if constexpr (merged) {
        load_merged_keys(arguments, shared);
      } else if constexpr (values_have_a_loader) {
        load_keys(arguments, shared);
      } else {
        load_keys_and_values(arguments, shared);
      }
    } else if (warp == 1) {
      load_queries(arguments, shared);
    } else if (warp == 2 && !always_has_work) {
      clear_idle_rows(arguments);
    } else if (warp == 3) {
      if constexpr (merged) {
        list_keys(arguments, shared);
      } else if constexpr (values_have_a_loader) {
        load_values(arguments, shared);
      }
    }
  } else {
    claim_registers<config::consumer_registers>();
    consume(arguments, shared, warpgroup - 1);
  }
  if constexpr (config::cluster > 1) {
    synchronize_cluster(); // the others' releases arrive in this thread block's shared memory
  }
}
