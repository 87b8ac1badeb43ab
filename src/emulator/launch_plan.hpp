// One launch, as the host threads that carry it out see it.
#pragma once

#include <cstdint>
#include <string>

#include "emulator/global_stores.hpp"
#include <tilewright/emulator.hpp>

namespace tilewright::emulator {

/// Immutable while the launch runs.
struct LaunchPlan {
  std::string kernel; // for error messages
  void (*entry)(const void* arguments) = nullptr;
  const void* arguments = nullptr;
  std::uint32_t blocks = 1;
  std::uint32_t cluster = 1;           // thread blocks that run together
  std::uint32_t threads_per_block = 1; // whole warps
  std::uint32_t registers = 0;         // per thread, at the start
  std::uint32_t shared_bytes = 0;      // of one thread block
  std::uint64_t seed = 0;
  Completion completion = Completion::seeded;
  bool check_initialised = true;
  bool check_races = false;
  bool copy_engine = false;       // the kernel uses tensor maps
  GlobalStores* stores = nullptr; // with check_races
};

} // namespace tilewright::emulator
