// Warpgroups, and what the lanes of a warp tell each other: device/warpgroup.cuh on the CPU.
#pragma once

#include "device/thread.cuh"

namespace tilewright {

constexpr int warpgroup_size = 128;
constexpr int warps_per_warpgroup = warpgroup_size / warp_size;

TILEWRIGHT_DEVICE int warpgroup_index() { return warp_index() / warps_per_warpgroup; }

namespace emulator {

template <int registers> void set_registers_of_warp(WarpExchange&, Place place) {
  static_assert(registers % 8 == 0 && registers >= 24 && registers <= 256, "setmaxnreg takes 24, 32, ..., 256");
  Thread& thread = this_thread();
  thread.services->set_registers(thread, registers, place);
}

inline void or_of_warp(WarpExchange& exchange, Place) {
  uint32_t bits = 0;
  for (const uint32_t word : exchange.word) {
    bits |= word;
  }
  set_results(exchange, bits);
}

inline void minimum_of_warp(WarpExchange& exchange, Place) {
  auto least = static_cast<int32_t>(exchange.word[0]);
  for (const uint32_t word : exchange.word) {
    const auto value = static_cast<int32_t>(word);
    least = value < least ? value : least;
  }
  set_results(exchange, static_cast<uint32_t>(least));
}

inline void maximum_of_warp(WarpExchange& exchange, Place) {
  uint32_t largest = 0;
  for (const uint32_t word : exchange.word) {
    largest = word > largest ? word : largest;
  }
  set_results(exchange, largest);
}

inline void sum_of_warp(WarpExchange& exchange, Place) {
  uint32_t sum = 0;
  for (const uint32_t word : exchange.word) {
    sum += word;
  }
  set_results(exchange, sum);
}

inline void elect_of_warp(WarpExchange& exchange, Place) {
  for (int lane = 0; lane < warp_lanes; ++lane) {
    exchange.result[lane] = lane == exchange.elected;
  }
}

} // namespace emulator

template <int registers> TILEWRIGHT_DEVICE void release_registers(emulator::Place place = emulator::here()) {
  emulator::Thread& thread = emulator::this_thread();
  thread.services->meet_warp(thread, emulator::WarpOperation::release_registers,
                             emulator::set_registers_of_warp<registers>, place);
}
template <int registers> TILEWRIGHT_DEVICE void claim_registers(emulator::Place place = emulator::here()) {
  emulator::Thread& thread = emulator::this_thread();
  thread.services->meet_warp(thread, emulator::WarpOperation::claim_registers,
                             emulator::set_registers_of_warp<registers>, place);
}

/// Which lane it is depends on the seed; it is the same all along.
TILEWRIGHT_DEVICE bool elect_lane(emulator::Place place = emulator::here()) {
  return emulator::exchange_words(0, emulator::WarpOperation::elect_lane, emulator::elect_of_warp, place) != 0;
}

TILEWRIGHT_DEVICE int broadcast(int value, int lane, emulator::Place place = emulator::here()) {
  return static_cast<int>(
      emulator::shuffle(static_cast<uint32_t>(value), lane, emulator::WarpOperation::broadcast, place));
}

TILEWRIGHT_DEVICE uint32_t uniform(uint32_t word, emulator::Place place = emulator::here()) {
  return emulator::exchange_words(word, emulator::WarpOperation::uniform, emulator::or_of_warp, place);
}

TILEWRIGHT_DEVICE int minimum_of_lanes(int value, emulator::Place place = emulator::here()) {
  return static_cast<int>(emulator::exchange_words(
      static_cast<uint32_t>(value), emulator::WarpOperation::minimum_of_lanes, emulator::minimum_of_warp, place));
}

TILEWRIGHT_DEVICE uint32_t maximum_of_lanes(uint32_t value, emulator::Place place = emulator::here()) {
  return emulator::exchange_words(value, emulator::WarpOperation::maximum_of_lanes, emulator::maximum_of_warp, place);
}

TILEWRIGHT_DEVICE int sum_of_lanes(int value, emulator::Place place = emulator::here()) {
  return static_cast<int>(emulator::exchange_words(static_cast<uint32_t>(value), emulator::WarpOperation::sum_of_lanes,
                                                   emulator::sum_of_warp, place));
}

TILEWRIGHT_DEVICE int lowest_bit(uint32_t bits) { return bits == 0 ? -1 : std::countr_zero(bits); }
TILEWRIGHT_DEVICE int highest_bit(uint32_t bits) { return 31 - std::countl_zero(bits); }
TILEWRIGHT_DEVICE int count_bits(uint32_t bits) { return std::popcount(bits); }

} // namespace tilewright
