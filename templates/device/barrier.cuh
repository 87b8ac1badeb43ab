// Barriers in shared memory that count arrivals and bytes (PTX mbarrier; PTX ISA, "Parallel Synchronization and
// Communication Instructions: mbarrier"), and the hardware's numbered barriers.
//
// A shared-memory barrier goes through phases 0, 1, 2, ... A phase completes when as many arrivals as
// initialize_barrier named have come and every byte that was announced has been copied; the next phase begins at once,
// with the same number of arrivals. Waiters name a phase by its parity: wait(b, p) returns when the phase that is
// running does not have parity p, that is, when the last phase of parity p has completed. A fresh barrier runs phase 0,
// so wait(b, 1) returns at once: whoever waits for a stage to be empty starts with parity 1, whoever waits for it to be
// full with parity 0. A waiter must not be two phases behind: the parity would be that of an older phase.
#pragma once

#include "device/thread.cuh"

namespace tilewright {

constexpr int barrier_bytes = 8; // and its alignment

/// One thread; once a launch, before anybody else uses the barrier.
TILEWRIGHT_DEVICE void initialize_barrier(SharedAddress barrier, int arrivals) {
  asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(barrier), "r"(arrivals) : "memory");
}

/// The thread that has initialised barriers, afterwards: the cluster's other threads and the copy engine see them as
/// soon as they have met that thread (synchronize_block, synchronize_cluster).
TILEWRIGHT_DEVICE void publish_barriers() { asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory"); }

/// `count` arrivals. What this thread wrote before is visible to those who see the phase complete.
TILEWRIGHT_DEVICE void arrive(SharedAddress barrier, int count = 1) {
  asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0], %1;" ::"r"(barrier), "r"(count) : "memory");
}

/// One arrival, which also announces `bytes` that copies will bring in this phase.
TILEWRIGHT_DEVICE void arrive_expecting(SharedAddress barrier, int bytes) {
  asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(barrier), "r"(bytes) : "memory");
}

/// One arrival on the barrier that stands at this address in the shared memory of the cluster's thread block `rank`.
/// Not the .release.cluster form, which adds a full memory barrier: this is for handing back what was only read.
TILEWRIGHT_DEVICE void arrive_in_cluster(SharedAddress barrier, int rank) {
  asm volatile("{\n"
               ".reg .b32 remote;\n"
               "mapa.shared::cluster.u32 remote, %0, %1;\n"
               "mbarrier.arrive.shared::cluster.b64 _, [remote];\n"
               "}" ::"r"(barrier),
               "r"(rank)
               : "memory");
}

/// Any threads, each for itself. What was written before the phase's arrivals, and what its copies brought, is visible
/// afterwards.
TILEWRIGHT_DEVICE void wait(SharedAddress barrier, uint32_t parity) {
  asm volatile("{\n"
               ".reg .pred done;\n"
               "WAIT_%=:\n"
               "mbarrier.try_wait.parity.shared::cta.b64 done, [%0], %1;\n"
               "@done bra DONE_%=;\n"
               "bra WAIT_%=;\n"
               "DONE_%=:\n"
               "}" ::"r"(barrier),
               "r"(parity)
               : "memory");
}

/// Whether wait() would return at once; perhaps false although it would.
TILEWRIGHT_DEVICE bool has_passed(SharedAddress barrier, uint32_t parity) {
  uint32_t passed;
  asm volatile("{\n"
               ".reg .pred done;\n"
               "mbarrier.test_wait.parity.shared::cta.b64 done, [%1], %2;\n"
               "selp.u32 %0, 1, 0, done;\n"
               "}"
               : "=r"(passed)
               : "r"(barrier), "r"(parity)
               : "memory");
  return passed != 0;
}

/// The numbered barrier `id` (1 to 15; 0 is synchronize_block's): returns when `threads` threads, whole warps, have
/// come.
TILEWRIGHT_DEVICE void synchronize_threads(int id, int threads) {
  asm volatile("bar.sync %0, %1;" ::"r"(id), "r"(threads) : "memory");
}

/// The same, and whether the condition holds for any of them.
TILEWRIGHT_DEVICE bool any_of_threads(int id, int threads, bool condition) {
  int any;
  asm volatile("{\n"
               ".reg .pred mine, any;\n"
               "setp.ne.s32 mine, %3, 0;\n"
               "barrier.cta.red.or.pred.aligned any, %1, %2, mine;\n"
               "selp.s32 %0, 1, 0, any;\n"
               "}"
               : "=r"(any)
               : "r"(id), "r"(threads), "r"(static_cast<int>(condition))
               : "memory");
  return any != 0;
}

} // namespace tilewright
