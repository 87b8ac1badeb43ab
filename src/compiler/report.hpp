// What is known of a compiled kernel besides its code.
#pragma once

#include <cstdint>

namespace tilewright {

/// What ptxas said of a kernel. The emulator's kernels have none: all zero.
struct KernelReport {
  std::int32_t registers = 0;
  std::int32_t spill_bytes = 0;
  std::int32_t stack_bytes = 0;
  std::int32_t static_shared_bytes = 0;
};

/// Where a kernel came from, for statistics and for `attend --json`.
enum class KernelOrigin : std::uint8_t { memory, disk, compiled };

} // namespace tilewright
