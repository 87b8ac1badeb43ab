// What a schedule needs, what an architecture offers, and why the one does not fit the other.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include <tilewright/problem.hpp>
#include <tilewright/schedule.hpp>

namespace tilewright::schedule {

/// What one multiprocessor offers. Bytes of shared memory.
struct ProcessorLimits {
  int architecture = 0;              // Architecture::number()
  std::int32_t shared_per_block = 0; // the most that one thread block can have, dynamic
  std::int32_t shared_in_all = 0;    // for all thread blocks, each of which takes shared_reserved more
};

/// Shared memory that the system keeps for itself in every thread block.
constexpr std::int32_t shared_reserved = 1024;
constexpr std::int32_t registers_in_all = 65536; // of a multiprocessor
constexpr std::int32_t registers_per_thread_limit = 255;

/// A dense problem has no tiles: its keys come in blocks of this many rows, and edges=full means a multiple of it.
constexpr std::int32_t dense_key_block = 64;

/// The limits of an architecture, whatever its suffix; none where this version does not know it.
std::optional<ProcessorLimits> limits_of(const Architecture& architecture) noexcept;

/// Whether this version has a kernel of the family that computes the problem.
bool family_available(Family family, const Problem& problem) noexcept;

/// What the family's kernels are compiled for on such a GPU: sm80's for the architecture without a suffix, sm90's for
/// sm_90a.
Architecture target_of(Family family, const Architecture& gpu) noexcept;

/// Dynamic shared memory of one thread block, in bytes. Throws unsupported for a family without a kernel.
std::int32_t shared_memory_bytes(const Problem& problem, const Schedule& schedule);

/// Registers that one thread cannot do without: accumulators, scores, and a few for everything else. A lower bound:
/// whether the compiler gets by without spills is known only after compiling.
std::int32_t least_registers(const Problem& problem, const Schedule& schedule) noexcept;

/// Every reason why a schedule cannot compute a closed problem on a GPU, in plain words; empty where it can.
std::vector<std::string> reasons_against(const Problem& problem, const Schedule& schedule, const Architecture& gpu);

} // namespace tilewright::schedule
