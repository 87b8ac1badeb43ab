// Who a thread is, what it shares, and how it meets the others: device/thread.cuh on the CPU.
#pragma once

#include <bit>

#include "emulator/runtime.cuh"

#define TILEWRIGHT_DEVICE inline
#define TILEWRIGHT_EXPORTED extern "C" __attribute__((visibility("default")))
#define TILEWRIGHT_KERNEL(threads, blocks_per_processor)                                                               \
  TILEWRIGHT_EXPORTED const int tilewright_emulated_threads = (threads);                                               \
  TILEWRIGHT_EXPORTED const int tilewright_emulated_blocks = (blocks_per_processor);                                   \
  extern "C" void
#define TILEWRIGHT_ARGUMENT(Type, name) const Type& name

/// Runs the kernel as one CUDA thread: defined behind the kernel by the code generator.
TILEWRIGHT_EXPORTED void tilewright_emulated_thread(const void* arguments);
// The kernel's launch bounds.
TILEWRIGHT_EXPORTED const int tilewright_emulated_threads;
TILEWRIGHT_EXPORTED const int tilewright_emulated_blocks;

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
  set_results(exchange, votes);
}

/// Each lane gets its partner's word.
inline void shuffle_of_warp(WarpExchange& exchange, Place) {
  for (int lane = 0; lane < warp_lanes; ++lane) {
    exchange.result[lane] = exchange.word[exchange.partner[lane] % warp_lanes];
  }
}

inline uint32_t shuffle(uint32_t word, int partner, WarpOperation operation, Place place) {
  Thread& thread = this_thread();
  thread.exchange->partner[lane_of(thread)] = partner;
  return exchange_words(word, operation, shuffle_of_warp, place);
}

} // namespace emulator

TILEWRIGHT_DEVICE uint32_t vote(bool condition, emulator::Place place = emulator::here()) {
  return emulator::exchange_words(condition, emulator::WarpOperation::vote, emulator::vote_of_warp, place);
}

TILEWRIGHT_DEVICE float shuffle_xor(float value, int mask, emulator::Place place = emulator::here()) {
  return std::bit_cast<float>(emulator::shuffle(std::bit_cast<uint32_t>(value), lane_index() ^ mask,
                                                emulator::WarpOperation::shuffle_xor, place));
}

} // namespace tilewright
