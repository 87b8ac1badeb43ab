// Stands in for the consumers of attention_forward_sm90.cu: takes every stage and hands it back at once. What is left
// is the loading: how fast the multiprocessors are fed, whatever they would compute.
#pragma once

#include "kernels/sm90/consumer.cuh"

namespace tilewright {

TILEWRIGHT_DEVICE void receive(const KernelArguments&, const Shared& shared, int consumer) {
  KeyStages stages(shared, consumer);
  uint32_t query_parity = 0;
  const auto next_query = [&] {
    wait(shared.query_full(consumer), query_parity);
    query_parity ^= 1;
    return static_cast<int>(uniform_shared_word(shared.query_note(consumer)));
  };
  while (next_query() != no_more_queries) {
    KeyStage taken;
    do {
      taken = stages.take();
      stages.release_keys(taken);
      stages.wait_for_values(taken);
      stages.release_values(taken);
    } while (!taken.last);
    synchronize_threads(1 + consumer, warpgroup_size);
    if (thread_index() % warpgroup_size == 0) {
      arrive(shared.query_empty(consumer));
    }
  }
}

} // namespace tilewright
