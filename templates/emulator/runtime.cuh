// What an emulated kernel and the emulator's runtime (src/emulator) know of each other. Compiled into both.
#pragma once

#include "device/integers.cuh"

namespace tilewright::emulator {

constexpr int warp_lanes = 32;

/// SharedAddress of the first byte of dynamic shared memory. Not 0, so that an address that was never set is noticed.
constexpr uint32_t shared_base = 1024;

/// Every CUDA thread runs on a stack of its own. A stack is aligned to its size and holds its Thread at its low end, so
/// code finds the thread that it belongs to from the address of its own frame. How far from the end depends on the
/// stack's number: at equal distances all Threads would share one set of the processor's caches.
constexpr uintptr_t stack_bytes = 128 * 1024;
constexpr uintptr_t thread_bytes = 5 * 64; // an odd number of cache lines
constexpr uintptr_t thread_places = 32;

/// Where in a template a primitive was called.
struct Place {
  const char* file;
  int line;
};

/// As a default argument: the place of the call.
constexpr Place here(const char* file = __builtin_FILE(), int line = __builtin_LINE()) { return {file, line}; }

/// What all lanes of a warp do together.
enum class WarpOperation : uint8_t {
  load_matrices,
  load_matrices_transposed,
  multiply_add,
  vote,
  shuffle_xor,
  synchronize_warp
};

enum class Access : uint8_t { read, write };

struct Thread;

/// What the lanes of one warp hand each other at a warp operation. A lane writes its own places, and reads its own
/// results before it comes to the next operation.
struct alignas(64) WarpExchange {
  Thread* threads[warp_lanes];
  uint32_t address[warp_lanes];   // load_matrices: of a matrix row
  uint32_t matrix[4][warp_lanes]; // load_matrices: the result
  uint32_t a[4][warp_lanes];      // multiply_add: registers of the fragments
  uint32_t b[2][warp_lanes];      // multiply_add: lane 4 n + k at place 8 k + n, so that columns are neighbours
  float d[2][2 * warp_lanes];     // multiply_add: rows 0 .. 7 and 8 .. 15 of 8 columns
  float value[warp_lanes];        // shuffle_xor
  int32_t mask[warp_lanes];       // shuffle_xor
  float shuffled[warp_lanes];     // shuffle_xor: the result
  uint32_t word[warp_lanes];      // vote: 0 or 1
  uint32_t agreed;                // vote: the result
};

/// What a warp operation computes, once, from what all lanes have put into the exchange.
using WarpWork = void (*)(WarpExchange& exchange, Place place);

/// The runtime, as kernels call it. Each function may switch to other CUDA threads, and throws what is wrong.
struct Services {
  /// Returns when all lanes of the warp have come here and the work is done.
  void (*meet_warp)(Thread& thread, WarpOperation operation, WarpWork work, Place place);
  void (*synchronize_block)(Thread& thread, Place place);
  void (*copy_async)(Thread& thread, uint32_t destination, const void* source, bool valid, Place place);
  void (*commit_copies)(Thread& thread);
  void (*wait_for_copies)(Thread& thread, int pending);
  /// Throws where the access is out of bounds or not aligned to its size; else notes it.
  void (*check_shared)(Thread& thread, uint32_t address, uint32_t bytes, Access access, Place place);
  void (*check_global)(Thread& thread, const void* address, uint32_t bytes, Access access, Place place);
};

/// A CUDA thread, as far as kernels know it.
struct Thread {
  const Services* services;
  WarpExchange* exchange;
  unsigned char* shared; // the thread block's dynamic shared memory
  uint32_t shared_bytes;
  bool watched; // every access is to be noted, not only checked
  int32_t index, block, grid;
};

inline Thread& thread_of_stack(uintptr_t number) {
  return *reinterpret_cast<Thread*>(number * stack_bytes + number % thread_places * thread_bytes);
}

inline Thread& this_thread() {
  return thread_of_stack(reinterpret_cast<uintptr_t>(__builtin_frame_address(0)) / stack_bytes);
}

/// The host's memory behind `bytes` bytes (a power of two) of shared memory, for an access of that size.
inline unsigned char* shared_at(Thread& thread, uint32_t address, uint32_t bytes, Access access, Place place) {
  const uint32_t offset = address - shared_base;
  const bool inside = uint64_t{offset} + bytes <= thread.shared_bytes && address % bytes == 0;
  if (!inside || thread.watched) {
    thread.services->check_shared(thread, address, bytes, access, place);
  }
  return thread.shared + offset;
}

inline void check_global(const void* address, uint32_t bytes, Access access, Place place) {
  Thread& thread = this_thread();
  if (reinterpret_cast<uintptr_t>(address) % bytes != 0 || thread.watched) {
    thread.services->check_global(thread, address, bytes, access, place);
  }
}

} // namespace tilewright::emulator
