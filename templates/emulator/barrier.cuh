// Barriers in shared memory, and numbered ones: device/barrier.cuh on the CPU.
#pragma once

#include "device/thread.cuh"

namespace tilewright {

constexpr int barrier_bytes = 8; // and its alignment

TILEWRIGHT_DEVICE void initialize_barrier(SharedAddress barrier, int arrivals,
                                          emulator::Place place = emulator::here()) {
  emulator::Thread& thread = emulator::this_thread();
  thread.services->initialize_barrier(thread, barrier, arrivals, place);
}

TILEWRIGHT_DEVICE void publish_barriers() {
  emulator::Thread& thread = emulator::this_thread();
  thread.services->publish_barriers(thread);
}

namespace emulator {

constexpr int own_block = -1;

} // namespace emulator

TILEWRIGHT_DEVICE void arrive(SharedAddress barrier, int count = 1, emulator::Place place = emulator::here()) {
  emulator::Thread& thread = emulator::this_thread();
  thread.services->arrive(thread, barrier, emulator::own_block, count, 0, place);
}

TILEWRIGHT_DEVICE void arrive_expecting(SharedAddress barrier, int bytes, emulator::Place place = emulator::here()) {
  emulator::Thread& thread = emulator::this_thread();
  thread.services->arrive(thread, barrier, emulator::own_block, 1, bytes, place);
}

TILEWRIGHT_DEVICE void arrive_in_cluster(SharedAddress barrier, int rank, emulator::Place place = emulator::here()) {
  emulator::Thread& thread = emulator::this_thread();
  thread.services->arrive(thread, barrier, rank, 1, 0, place);
}

TILEWRIGHT_DEVICE void wait(SharedAddress barrier, uint32_t parity, emulator::Place place = emulator::here()) {
  emulator::Thread& thread = emulator::this_thread();
  thread.services->wait_for_phase(thread, barrier, parity, place);
}

/// The seed decides how late it is noticed.
TILEWRIGHT_DEVICE bool has_passed(SharedAddress barrier, uint32_t parity, emulator::Place place = emulator::here()) {
  emulator::Thread& thread = emulator::this_thread();
  return thread.services->has_passed(thread, barrier, parity, place);
}

TILEWRIGHT_DEVICE void synchronize_threads(int id, int threads, emulator::Place place = emulator::here()) {
  emulator::Thread& thread = emulator::this_thread();
  thread.services->meet_threads(thread, id, threads, false, place);
}

TILEWRIGHT_DEVICE bool any_of_threads(int id, int threads, bool condition, emulator::Place place = emulator::here()) {
  emulator::Thread& thread = emulator::this_thread();
  return thread.services->meet_threads(thread, id, threads, condition, place);
}

} // namespace tilewright
