// One thread block while it runs.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <new>
#include <unordered_map>
#include <vector>

#include "emulator/shared_barrier.hpp"
#include "emulator/unfenced_stores.hpp"

namespace tilewright::emulator {

struct Fiber;

constexpr std::align_val_t shared_alignment{1024}; // the period of the 128-byte swizzle

struct FreeShared {
  void operator()(unsigned char* memory) const noexcept { ::operator delete(memory, shared_alignment); }
};

/// A hardware barrier that threads meet at by its number.
struct NumberedBarrier {
  int expected = 0; // threads, by whoever came first
  bool any = false; // of their conditions
  std::vector<Fiber*> waiting = {};
};

struct ThreadBlock {
  static constexpr int numbered_barriers = 16;

  std::uint32_t index = 0; // in the grid
  std::uint32_t rank = 0;  // in its cluster
  std::unique_ptr<unsigned char, FreeShared> shared;
  std::size_t shared_bytes = 0;
  std::size_t unfinished = 0;                                     // threads
  std::vector<Fiber*> at_barrier = {};                            // threads that wait at synchronize_block
  std::unordered_map<std::uint32_t, SharedBarrier> barriers = {}; // by address
  std::array<NumberedBarrier, numbered_barriers> numbered = {};
  UnfencedStores unfenced = {};
  std::int64_t free_registers = 0;                // handed back, of all warps
  std::vector<std::uint32_t> warp_registers = {}; // per thread, by warp
  std::vector<Fiber*> waiting_for_registers = {};
};

} // namespace tilewright::emulator
