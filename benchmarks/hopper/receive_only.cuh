// Stands in for the consumers of attention_forward_sm90.cu: takes every stage and hands it back at once. What is left
// is the loading: how fast the multiprocessors are fed, whatever they would compute.
#pragma once

#include "kernels/sm90/consumer.cuh"

namespace tilewright {

TILEWRIGHT_DEVICE void receive(const KernelArguments&, const Shared& shared, int consumer) {
  KeyStages stages(shared, consumer);
  OwnRows own_rows(shared, consumer);
  while (own_rows.next() != no_more_rows) {
    KeyStage taken;
    do {
      taken = stages.take();
      stages.release_keys(taken);
      stages.wait_for_values(taken);
      stages.release_values(taken);
    } while (!taken.last);
    synchronize_threads(1 + consumer, warpgroup_size);
    if (thread_index() % warpgroup_size == 0) {
      own_rows.hand_back();
    }
  }
}

} // namespace tilewright
