// Walking through the ring of stages.
#pragma once

#include "config.cuh"
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

} // namespace tilewright
