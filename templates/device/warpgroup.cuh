// Warpgroups, and what the lanes of a warp tell each other.
#pragma once

#include "device/thread.cuh"

namespace tilewright {

constexpr int warpgroup_size = 128;
constexpr int warps_per_warpgroup = warpgroup_size / warp_size;

/// The number of this thread's warpgroup; the same value in all lanes, and the compiler knows it.
TILEWRIGHT_DEVICE int warpgroup_index() { return warp_index() / warps_per_warpgroup; }

/// Hands registers back, and asks for more (waiting until there are any): from then on a thread has `registers` of
/// them. All threads of the warpgroup; a multiple of 8.
template <int registers> TILEWRIGHT_DEVICE void release_registers() {
  asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" ::"n"(registers));
}
template <int registers> TILEWRIGHT_DEVICE void claim_registers() {
  asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"(registers));
}

/// True in one lane of the warp, always the same. All lanes.
TILEWRIGHT_DEVICE bool elect_lane() {
  uint32_t elected;
  asm volatile("{\n"
               ".reg .pred mine;\n"
               "elect.sync _|mine, 0xffffffff;\n"
               "selp.u32 %0, 1, 0, mine;\n"
               "}"
               : "=r"(elected));
  return elected != 0;
}

/// The value that `lane` gives, in all lanes.
TILEWRIGHT_DEVICE int broadcast(int value, int lane) { return __shfl_sync(all_lanes, value, lane); }

/// A word that is the same in all lanes, so that the compiler knows it: a loop that ends by it keeps its addresses in
/// registers that lanes share (a shuffle or a vote does not bring that about, redux.sync does).
TILEWRIGHT_DEVICE uint32_t uniform(uint32_t word) { return __reduce_or_sync(all_lanes, word); }

/// The smallest of all lanes' values, in all lanes.
TILEWRIGHT_DEVICE int minimum_of_lanes(int value) { return __reduce_min_sync(all_lanes, value); }
/// The largest, and the sum.
TILEWRIGHT_DEVICE uint32_t maximum_of_lanes(uint32_t value) { return __reduce_max_sync(all_lanes, value); }
TILEWRIGHT_DEVICE int sum_of_lanes(int value) { return __reduce_add_sync(all_lanes, value); }

/// The number of the lowest bit that is set.
TILEWRIGHT_DEVICE int lowest_bit(uint32_t bits) { return __ffs(static_cast<int>(bits)) - 1; }
/// The number of the highest bit that is set; -1: none.
TILEWRIGHT_DEVICE int highest_bit(uint32_t bits) { return 31 - __clz(static_cast<int>(bits)); }
TILEWRIGHT_DEVICE int count_bits(uint32_t bits) { return __popc(bits); }

} // namespace tilewright
