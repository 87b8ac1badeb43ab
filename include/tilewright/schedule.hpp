// A schedule: how to compute a problem. It changes speed, never the result's meaning.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <type_traits>

#include <tilewright/problem.hpp>
#include <tilewright/types.hpp>

namespace tilewright {

/// The kernel families, by the oldest architecture that runs them.
enum class Family : std::uint8_t {
  automatic, // the fastest that the architecture can run
  sm80,      // mma.sync, ldmatrix, cp.async: every GPU from sm_80 up
  sm90       // wgmma, TMA, mbarriers: sm_90a only
};

/// How the softmax follows the running maximum (docs/kernels.md).
enum class Softmax : std::uint8_t {
  online, // the exact running maximum, rescaling at every block
  lazy,   // rescale only where the maximum has grown by more than 2^8
  fixed   // the first block's maximum, with an exact repeat where a row sum leaves its range
};

/// A plain value without padding. Fields that a family has no use for are 0.
struct Schedule {
  std::int16_t block_q = 0;              // query rows that share a list of keys; sm80: those of a thread block (CTA)
  std::int16_t block_k = 0;              // key rows of one step
  std::uint8_t stages = 0;               // key/value blocks in flight
  std::uint8_t warps = 0;                // sm80: warps of a thread block
  std::uint8_t blocks_per_processor = 0; // thread blocks that shall fit one multiprocessor
  std::uint8_t consumers = 0;            // sm90: consumer warpgroups, 64 query rows each. block_q=64 with several of
                                         // them: each has a list of its own, and lists are merged while loading
  std::uint8_t consumer_registers = 0;   // sm90: registers per thread after setmaxnreg
  std::uint8_t producer_registers = 0;
  std::uint8_t cluster = 0; // sm90: thread blocks that share keys and values by multicast
  std::uint8_t overlap = 0; // sm90: 1: the softmax of a block runs beside the products of its neighbours
  Family family = Family::automatic;
  Softmax softmax = Softmax::online;

  friend bool operator==(const Schedule&, const Schedule&) = default;
};
static_assert(std::has_unique_object_representations_v<Schedule>);

/// "family=sm80,block_q=128,block_k=64,stages=2,warps=4,blocks_per_processor=2,softmax=online"
std::string to_string(const Schedule& schedule);
/// The inverse. Throws invalid_argument.
Schedule parse_schedule(std::string_view text);

std::string_view to_string(Family family) noexcept;

/// Everything that the generated source depends on. The problem is closed (nothing open).
struct Spec {
  Problem problem;
  Schedule schedule;
  Architecture architecture;
  std::uint8_t reserved[3] = {}; // keeps the struct free of padding

  friend bool operator==(const Spec&, const Spec&) = default;
};

static_assert(std::has_unique_object_representations_v<Spec>);

/// "PROBLEM@sm_90a/SCHEDULE"
std::string to_string(const Spec& spec);

} // namespace tilewright
