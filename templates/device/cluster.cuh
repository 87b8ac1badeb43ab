// Thread blocks of one cluster: they run at the same time and reach each other's shared memory.
#pragma once

#include "device/thread.cuh"

namespace tilewright {

TILEWRIGHT_DEVICE int cluster_rank() {
  uint32_t rank;
  asm("mov.u32 %0, %%cluster_ctarank;" : "=r"(rank));
  return static_cast<int>(rank);
}

/// All threads of all the cluster's thread blocks meet; what they wrote before is visible to all afterwards. Also
/// before a thread block ends, where another may still arrive on its barriers or copy into its shared memory.
TILEWRIGHT_DEVICE void synchronize_cluster() {
  asm volatile("barrier.cluster.arrive.release.aligned;\n"
               "barrier.cluster.wait.acquire.aligned;" ::
                   : "memory");
}

} // namespace tilewright
