// How many random problems a GPU test computes, and which: so that several processes can share them.
#pragma once

#include <cstdint>

#include "support_environment.hpp"

namespace tilewright::testing {

/// TILEWRIGHT_GPU_PROBLEMS
inline std::uint64_t problem_count(std::uint64_t without_a_wish) {
  return number_in_environment("TILEWRIGHT_GPU_PROBLEMS", without_a_wish);
}

/// TILEWRIGHT_GPU_SEED: of the first problem.
inline std::uint64_t first_seed() { return number_in_environment("TILEWRIGHT_GPU_SEED", 0); }

} // namespace tilewright::testing
