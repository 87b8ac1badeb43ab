// Thread blocks of one cluster: device/cluster.cuh on the CPU.
#pragma once

#include "device/thread.cuh"

namespace tilewright {

TILEWRIGHT_DEVICE int cluster_rank() { return emulator::this_thread().rank; }

TILEWRIGHT_DEVICE void synchronize_cluster(emulator::Place place = emulator::here()) {
  emulator::Thread& thread = emulator::this_thread();
  thread.services->synchronize_cluster(thread, place);
}

} // namespace tilewright
