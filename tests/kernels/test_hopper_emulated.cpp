// The sm90 family's kernels in the emulator, against the float64 reference: every pattern, type, head size and layout
// with its default schedule, and every form of schedule on whatever random problems it fits.
#include <doctest/doctest.h>

#include <cstdint>
#include <string>
#include <vector>

#include "kernels/forms.hpp"
#include "support_replay.hpp"
#include <tilewright/emulator.hpp>
#include <tilewright/runtime.hpp>

using namespace tilewright;
using testing::hopper;

namespace {

/// What is wrong with the problem of this seed under two orders of threads; empty where nothing is.
std::string check(std::uint64_t seed, const testing::RandomLimits& limits, const RuntimeOptions& options) {
  const auto make = [&](const testing::ChoiceList* list) { return testing::RandomProblem(seed, limits, list); };
  return testing::check_shrinking(seed, make, [&](testing::RandomProblem& problem) -> std::string {
    for (const std::uint64_t emulator_seed : {seed, seed + 1000003}) {
      Runtime runtime(make_emulator({.seed = emulator_seed, .architecture = hopper}), options);
      const std::string wrong = problem.check(
          [&](const AttentionForward& call, const Pattern& pattern) { runtime.attention_forward(call, pattern); });
      if (!wrong.empty())
        return fmt::format("emulator seed {}: {}", emulator_seed, wrong);
    }
    return {};
  });
}

} // namespace

TEST_CASE("default sm90 schedules: every pattern, type, head size and layout") {
  for (const auto& [seed, limits] : testing::every_form(testing::small_forward_hopper(), 1, 0)) {
    CHECK(check(seed, limits, {}) == "");
    CHECK(check(seed + 1, limits, {}) == "");
  }
}

TEST_CASE("sm90 schedules of every form") {
  for (const auto& [op, schedule] : testing::hopper_schedules()) {
    if (op != Operator::attention_forward)
      continue;
    const std::string text = to_string(schedule);
    CAPTURE(text);
    const std::vector<testing::AttentionForm> forms = testing::fitting_forms(op, schedule, 2);
    REQUIRE(forms.size() == 2);
    RuntimeOptions options;
    options.schedule = schedule;
    for (const auto& [seed, limits] : forms)
      CHECK(check(seed, limits, options) == "");
  }
}

TEST_CASE("scores of every scale stay within the tolerances, with each way to follow the maximum") {
  for (const char* softmax : {"fixed", "lazy", "online"})
    for (const DataType dtype : {DataType::bf16, DataType::fp16})
      for (const double scale : {16.0, 64.0}) {
        testing::RandomLimits limits = testing::small_forward_hopper();
        limits.pattern = PatternKind::dense;
        limits.dtype = dtype;
        limits.head_dim = 64;
        limits.layout = Layout::raster;
        limits.query_scale_max = scale;
        RuntimeOptions options;
        options.schedule = parse_schedule("family=sm90,block_q=192,block_k=64,blocks_per_processor=1,consumers=3,"
                                          "consumer_registers=152,producer_registers=56,cluster=1,stages=4,overlap=1,"
                                          "softmax=" +
                                          std::string(softmax));
        CAPTURE(softmax);
        CHECK(check(static_cast<std::uint64_t>(scale) + 2, limits, options) == "");
        CHECK(check(static_cast<std::uint64_t>(scale) + 7, limits, options) == "");
      }
}
