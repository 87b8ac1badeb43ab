// Boxes of a tensor between global and shared memory: device/tensor_copy.cuh on the CPU. What a tensor map holds and
// how a box is copied: src/emulator/tensor_map.cpp.
#pragma once

#include "device/thread.cuh"
#include "kernels/tensor_map.cuh"

/// Stores to shared memory are to be noted: the copy engine may not see them without a fence.
TILEWRIGHT_EXPORTED const int tilewright_emulated_proxies;
const int tilewright_emulated_proxies = 1;

namespace tilewright {

struct BoxOrigin {
  int coordinate[5];
};

namespace emulator {

inline BoxRequest box_request(const TensorMap& map, const BoxOrigin& origin, SharedAddress shared,
                              SharedAddress barrier = 0, uint32_t ranks = 0) {
  const int(&at)[5] = origin.coordinate;
  return {&map, {at[0], at[1], at[2], at[3], at[4]}, shared, barrier, ranks};
}

} // namespace emulator

TILEWRIGHT_DEVICE void prefetch(const TensorMap& map, emulator::Place place = emulator::here()) {
  emulator::Thread& thread = emulator::this_thread();
  thread.services->check_map(thread, &map, place);
}

TILEWRIGHT_DEVICE void copy_box_to_shared(SharedAddress destination, const TensorMap& map, const BoxOrigin& origin,
                                          SharedAddress barrier, emulator::Place place = emulator::here()) {
  emulator::Thread& thread = emulator::this_thread();
  thread.services->copy_box_to_shared(
      thread, emulator::box_request(map, origin, destination, barrier, 1u << thread.rank), place);
}

TILEWRIGHT_DEVICE void copy_bytes_to_shared(SharedAddress destination, const void* source, int bytes,
                                            SharedAddress barrier, emulator::Place place = emulator::here()) {
  emulator::Thread& thread = emulator::this_thread();
  thread.services->copy_bytes_to_shared(thread, {source, destination, static_cast<uint32_t>(bytes), barrier}, place);
}

TILEWRIGHT_DEVICE void copy_box_to_cluster(SharedAddress destination, const TensorMap& map, const BoxOrigin& origin,
                                           SharedAddress barrier, uint32_t ranks,
                                           emulator::Place place = emulator::here()) {
  emulator::Thread& thread = emulator::this_thread();
  thread.services->copy_box_to_shared(thread, emulator::box_request(map, origin, destination, barrier, ranks), place);
}

TILEWRIGHT_DEVICE void copy_box_to_global(const TensorMap& map, const BoxOrigin& origin, SharedAddress source,
                                          emulator::Place place = emulator::here()) {
  emulator::Thread& thread = emulator::this_thread();
  thread.services->copy_box_to_global(thread, emulator::box_request(map, origin, source), place);
}

TILEWRIGHT_DEVICE void commit_box_copies() {
  emulator::Thread& thread = emulator::this_thread();
  thread.services->commit_box_copies(thread);
}

TILEWRIGHT_DEVICE void wait_for_box_sources() {
  emulator::Thread& thread = emulator::this_thread();
  thread.services->wait_for_boxes(thread, true);
}

TILEWRIGHT_DEVICE void wait_for_box_copies() {
  emulator::Thread& thread = emulator::this_thread();
  thread.services->wait_for_boxes(thread, false);
}

TILEWRIGHT_DEVICE void fence_shared_for_copies() {
  emulator::Thread& thread = emulator::this_thread();
  thread.services->fence_shared(thread);
}

} // namespace tilewright
