// Walking through the ring of stages, and what is left beside a stage for its consumers.
#pragma once

#include "config.cuh"
#include "device/barrier.cuh"
#include "device/copy.cuh"
#include "device/warpgroup.cuh"

namespace tilewright {

/// The word; the compiler knows that all lanes have the same. When it returns all lanes have read.
TILEWRIGHT_DEVICE uint32_t uniform_shared_word(SharedAddress address) { return uniform(load_shared_word(address)); }

/// A place in the ring of stages, and the parity of the phase that fills it. Whoever waits for a stage to be empty
/// waits for the phase before: the other parity.
struct RingPlace {
  int stage = 0;
  uint32_t parity = 0;

  TILEWRIGHT_DEVICE void advance() {
    if (++stage == config::stages) {
      stage = 0;
      parity ^= 1;
    }
  }
};

// A stage's note tells its consumers what they cannot know: flags, then a bit for each of its rows that exists.
constexpr uint32_t note_last = 1;   // the item ends with this stage
constexpr uint32_t note_masked = 2; // some of its rows do not exist: only then are the bits written
TILEWRIGHT_DEVICE constexpr uint32_t note_flags(bool last, bool masked) {
  return (last ? note_last : 0u) | (masked ? note_masked : 0u);
}
template <int rows> constexpr int note_bytes = (1 + rows / 32) * 4;

/// All lanes; before the copies' arrival, by the same lane. Step: rows of a tile, first_row, masked. masks: whether
/// consumers need the bits.
template <int rows, bool masks, class Step>
TILEWRIGHT_DEVICE void write_note(SharedAddress note, const Step& step, bool last) {
  if (masks && step.masked) {
#pragma unroll
    for (int word = 0; word < rows / 32; ++word) {
      const uint32_t bits = vote(step.rows.contains(step.first_row + word * 32 + lane_index()));
      if (elect_lane()) {
        store_shared(note + 4 + word * 4, bits);
      }
    }
  }
  if (elect_lane()) {
    store_shared(note, note_flags(last, step.masked));
  }
}

// With merged lists a consumer is told by a queue which stages are its own. An entry: flags | stage << 8 | parity
// << 16.
TILEWRIGHT_DEVICE constexpr uint32_t queue_entry(uint32_t flags, const RingPlace& place) {
  return flags | static_cast<uint32_t>(place.stage) << 8 | place.parity << 16;
}
TILEWRIGHT_DEVICE RingPlace queued_place(uint32_t entry) { return {static_cast<int>(entry >> 8 & 0xff), entry >> 16}; }

} // namespace tilewright
