// Who a thread is, what it shares, and how it meets the others.
#pragma once

#include "device/integers.cuh"

#define TILEWRIGHT_DEVICE __device__ __forceinline__
#define TILEWRIGHT_KERNEL(threads, blocks_per_processor)                                                               \
  extern "C" __global__ void __launch_bounds__(threads, blocks_per_processor)
#define TILEWRIGHT_ARGUMENT(Type, name) const __grid_constant__ Type name

namespace tilewright {

/// An address in this thread block's shared memory, in bytes.
using SharedAddress = uint32_t;

constexpr int warp_size = 32;
constexpr uint32_t all_lanes = 0xffffffffu;

// 1024 bytes: the period of the 128-byte swizzle over rows of 128 bytes.
extern __shared__ __align__(1024) unsigned char tilewright_shared_memory[];

TILEWRIGHT_DEVICE SharedAddress shared_memory() {
  return static_cast<SharedAddress>(__cvta_generic_to_shared(tilewright_shared_memory));
}

TILEWRIGHT_DEVICE int thread_index() { return static_cast<int>(threadIdx.x); }
TILEWRIGHT_DEVICE int lane_index() { return static_cast<int>(threadIdx.x) % warp_size; }
/// The same value in all lanes, and the compiler knows it.
TILEWRIGHT_DEVICE int warp_index() { return __shfl_sync(all_lanes, static_cast<int>(threadIdx.x) / warp_size, 0); }
TILEWRIGHT_DEVICE int block_index() { return static_cast<int>(blockIdx.x); }
TILEWRIGHT_DEVICE int grid_size() { return static_cast<int>(gridDim.x); }

/// The same value, of which the compiler knows nothing: what is derived from it is computed where it stands, not kept
/// in registers around the loop.
TILEWRIGHT_DEVICE int opaque(int value) {
  asm volatile("" : "+r"(value));
  return value;
}

TILEWRIGHT_DEVICE void synchronize_block() { __syncthreads(); }
TILEWRIGHT_DEVICE void synchronize_warp() { __syncwarp(); }

/// Bit i is lane i's condition, in all lanes.
TILEWRIGHT_DEVICE uint32_t vote(bool condition) { return __ballot_sync(all_lanes, condition); }
/// The value of the lane whose number differs in the bits of mask.
TILEWRIGHT_DEVICE float shuffle_xor(float value, int mask) { return __shfl_xor_sync(all_lanes, value, mask); }

} // namespace tilewright
