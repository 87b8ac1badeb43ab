// The sm90 family's backward kernels in the emulator, against the float64 reference.
#include <doctest/doctest.h>

#include <cstdint>
#include <string>
#include <vector>

#include "kernels/forms.hpp"
#include "support_random_backward.hpp"
#include "support_replay.hpp"
#include "support_seeds.hpp"
#include <tilewright/emulator.hpp>
#include <tilewright/runtime.hpp>

using namespace tilewright;
using testing::hopper;

namespace {

/// What is wrong with the gradients under so many orders of threads, which must be the same bits; empty where nothing
/// is.
std::string check(std::uint64_t seed, const testing::RandomLimits& limits, RuntimeOptions options = {},
                  double scale = 1, std::uint64_t emulator_seeds = 2) {
  options.family = Family::sm90;
  const auto make = [&](const testing::ChoiceList* list) { return testing::RandomBackward(seed, limits, scale, list); };
  return testing::check_shrinking(seed, make, [&](testing::RandomBackward& problem) -> std::string {
    std::vector<std::byte> first;
    for (std::uint64_t emulator_seed = 0; emulator_seed < emulator_seeds; ++emulator_seed) {
      Runtime runtime(make_emulator(testing::options_of_seed(hopper, emulator_seed)), options);
      const std::string wrong = problem.check(
          [&](const AttentionBackward& call, const Pattern& pattern) { runtime.attention_backward(call, pattern); });
      if (!wrong.empty())
        return fmt::format("emulator seed {}: {}", emulator_seed, wrong);
      if (first.empty())
        first = problem.gradient_bytes();
      else if (first != problem.gradient_bytes())
        return fmt::format("{}: emulator seed {} gives other bits than 0", problem.problem().description(),
                           emulator_seed);
    }
    return {};
  });
}

} // namespace

TEST_CASE("backward kernels of sm90, default schedules: every pattern, type, head size and layout under eight seeds") {
  for (const auto& [seed, limits] : testing::backward_forms(hopper))
    CHECK(check(seed, limits, {}, 1, testing::emulator_seeds()) == "");
}

TEST_CASE("backward kernels of sm90, schedules of every form") {
  for (const auto& [op, schedule] : testing::hopper_schedules()) {
    if (!is_backward(op))
      continue;
    const std::string text = to_string(schedule);
    CAPTURE(text);
    const std::vector<testing::AttentionForm> forms = testing::fitting_forms(op, schedule, 2);
    REQUIRE(forms.size() == 2);
    RuntimeOptions options;
    (op == Operator::attention_backward_key ? options.backward_key_schedule : options.backward_query_schedule) =
        schedule;
    for (const auto& [seed, limits] : forms)
      CHECK(check(seed, limits, options) == "");
  }
}

TEST_CASE("backward kernels of sm90, activations of every scale") {
  testing::RandomLimits limits = testing::small_backward(hopper);
  for (const DataType dtype : {DataType::bf16, DataType::fp16})
    for (const double scale : {4.0, 16.0})
      for (const std::uint64_t seed : {201U, 202U, 203U}) {
        limits.dtype = dtype;
        CHECK(check(seed, limits, {}, scale) == "");
      }
}
