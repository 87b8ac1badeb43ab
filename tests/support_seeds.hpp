// One problem in the emulator under eight seeds.
#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include <fmt/format.h>

#include "support_environment.hpp"
#include <tilewright/emulator.hpp>
#include <tilewright/error.hpp>

namespace tilewright::testing {

/// Eight. TILEWRIGHT_EMULATOR_SEEDS=N: as many, where each run takes long (under sanitizers).
inline std::uint64_t emulator_seeds() { return number_in_environment("TILEWRIGHT_EMULATOR_SEEDS", 8); }

/// Two of the seeds let everything happen as late and as early as it may, one looks for races.
inline EmulatorOptions options_of_seed(const Architecture& architecture, std::uint64_t seed) {
  EmulatorOptions options;
  options.architecture = architecture;
  options.seed = seed;
  options.completion = seed == 0 ? Completion::latest : seed == 1 ? Completion::earliest : Completion::seeded;
  options.check_races = seed == 2;
  return options;
}

/// What run(executor) says is wrong under the first seed where it says something; empty where nothing is.
template <class Run> std::string complaint_under_seeds(const Architecture& architecture, Run&& run) {
  for (std::uint64_t seed = 0; seed < emulator_seeds(); ++seed) {
    std::string wrong;
    try {
      wrong = run(make_emulator(options_of_seed(architecture, seed)));
    } catch (const Error& error) {
      wrong = error.what();
    }
    if (!wrong.empty())
      return fmt::format("emulator seed {}: {}", seed, wrong);
  }
  return {};
}

} // namespace tilewright::testing
