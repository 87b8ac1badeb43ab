// Who a thread is, what it shares, and how it meets the others: device/thread.cuh on the CPU.
#pragma once

#include "emulator/runtime.cuh"

#define TILEWRIGHT_DEVICE inline
#define TILEWRIGHT_EXPORTED extern "C" __attribute__((visibility("default")))
#define TILEWRIGHT_KERNEL(threads, blocks_per_processor)                                                               \
  TILEWRIGHT_EXPORTED const int tilewright_emulated_threads = (threads);                                               \
  extern "C" void
#define TILEWRIGHT_ARGUMENT(Type, name) const Type& name

/// Runs the kernel as one CUDA thread: defined behind the kernel by the code generator.
TILEWRIGHT_EXPORTED void tilewright_emulated_thread(const void* arguments);
TILEWRIGHT_EXPORTED const int tilewright_emulated_threads; // the kernel's launch bounds

namespace tilewright {

using SharedAddress = uint32_t;

constexpr int warp_size = emulator::warp_lanes;
constexpr uint32_t all_lanes = 0xffffffffu;

TILEWRIGHT_DEVICE SharedAddress shared_memory() { return emulator::shared_base; }

TILEWRIGHT_DEVICE int thread_index() { return emulator::this_thread().index; }
TILEWRIGHT_DEVICE int lane_index() { return thread_index() % warp_size; }
TILEWRIGHT_DEVICE int warp_index() { return thread_index() / warp_size; }
TILEWRIGHT_DEVICE int block_index() { return emulator::this_thread().block; }
TILEWRIGHT_DEVICE int grid_size() { return emulator::this_thread().grid; }

/// On a GPU a hint to the compiler.
TILEWRIGHT_DEVICE int opaque(int value) { return value; }

TILEWRIGHT_DEVICE void synchronize_block(emulator::Place place = emulator::here()) {
  emulator::Thread& thread = emulator::this_thread();
  thread.services->synchronize_block(thread, place);
}

TILEWRIGHT_DEVICE void synchronize_warp(emulator::Place place = emulator::here()) {
  emulator::Thread& thread = emulator::this_thread();
  thread.services->meet_warp(
      thread, emulator::WarpOperation::synchronize_warp, [](emulator::WarpExchange&, emulator::Place) {}, place);
}

namespace emulator {

inline void vote_of_warp(WarpExchange& exchange, Place) {
  uint32_t votes = 0;
  for (int lane = 0; lane < warp_lanes; ++lane) {
    votes |= exchange.word[lane] << lane;
  }
  exchange.agreed = votes;
}

inline void shuffle_warp(WarpExchange& exchange, Place) {
  for (int lane = 0; lane < warp_lanes; ++lane) {
    exchange.shuffled[lane] = exchange.value[(lane ^ exchange.mask[lane]) % warp_lanes];
  }
}

} // namespace emulator

TILEWRIGHT_DEVICE uint32_t vote(bool condition, emulator::Place place = emulator::here()) {
  emulator::Thread& thread = emulator::this_thread();
  emulator::WarpExchange& exchange = *thread.exchange;
  const int lane = thread.index % warp_size;
  exchange.word[lane] = condition;
  thread.services->meet_warp(thread, emulator::WarpOperation::vote, emulator::vote_of_warp, place);
  return exchange.agreed;
}

TILEWRIGHT_DEVICE float shuffle_xor(float value, int mask, emulator::Place place = emulator::here()) {
  emulator::Thread& thread = emulator::this_thread();
  emulator::WarpExchange& exchange = *thread.exchange;
  const int lane = thread.index % warp_size;
  exchange.value[lane] = value;
  exchange.mask[lane] = mask;
  thread.services->meet_warp(thread, emulator::WarpOperation::shuffle_xor, emulator::shuffle_warp, place);
  return exchange.shuffled[lane];
}

} // namespace tilewright
