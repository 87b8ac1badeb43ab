// The sm90 family's kernels in the emulator, against the float64 reference: every pattern, type, head size and layout
// with its default schedule, and every form of schedule on whatever random problems it fits.
#include <doctest/doctest.h>

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "schedule/feasibility.hpp"
#include "schedule/heuristic.hpp"
#include "support_random_problem.hpp"
#include "support_replay.hpp"
#include <tilewright/emulator.hpp>
#include <tilewright/error.hpp>
#include <tilewright/runtime.hpp>

using namespace tilewright;

namespace {

constexpr Architecture hopper{9, 0, 'a'};

testing::RandomLimits small_problems() {
  testing::RandomLimits limits;
  limits.max_tokens = 800;
  limits.max_text = 256;
  limits.max_flops = 3e7;
  limits.any_strides = false;
  return limits;
}

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

/// The first seeds whose problems the schedule fits.
std::vector<std::uint64_t> fitting_seeds(const Schedule& schedule, const testing::RandomLimits& limits,
                                         std::size_t count) {
  std::vector<std::uint64_t> seeds;
  for (std::uint64_t seed = 0; seeds.size() < count && seed < 2000; ++seed)
    if (schedule::reasons_against(testing::RandomProblem(seed, limits).problem(), schedule, hopper).empty())
      seeds.push_back(seed);
  return seeds;
}

const std::string three = "family=sm90,block_q=192,block_k=64,blocks_per_processor=1,consumers=3,"
                          "consumer_registers=152,producer_registers=56,";
const std::string two = "family=sm90,block_q=128,blocks_per_processor=1,consumers=2,consumer_registers=232,"
                        "producer_registers=40,";
const std::string merged = "family=sm90,block_q=64,block_k=64,cluster=1,blocks_per_processor=1,";

} // namespace

TEST_CASE("default sm90 schedules: every pattern, type, head size and layout") {
  for (const PatternKind pattern : {PatternKind::dense, PatternKind::sliding_tile, PatternKind::block_list})
    for (const DataType dtype : {DataType::bf16, DataType::fp16})
      for (const std::int32_t head_dim : {64, 128})
        for (const Layout layout : {Layout::raster, Layout::tiled}) {
          testing::RandomLimits limits = small_problems();
          limits.pattern = pattern;
          limits.dtype = dtype;
          limits.head_dim = head_dim;
          limits.layout = layout;
          for (const std::uint64_t seed : {1U, 2U})
            CHECK(check(seed, limits, {}) == "");
        }
}

TEST_CASE("sm90 schedules of every form") {
  const std::vector<std::string> schedules = {
      three + "cluster=1,stages=2,overlap=0,softmax=fixed",
      three + "cluster=1,stages=4,overlap=1,softmax=lazy",
      three + "cluster=1,stages=3,overlap=1,softmax=online",
      three + "cluster=2,stages=2,overlap=1,softmax=fixed",
      three + "cluster=2,stages=5,overlap=0,softmax=lazy",
      two + "block_k=128,cluster=1,stages=2,overlap=1,softmax=fixed",
      two + "block_k=128,cluster=2,stages=2,overlap=1,softmax=online",
      two + "block_k=64,cluster=2,stages=3,overlap=0,softmax=fixed",
      merged + "consumers=3,consumer_registers=152,producer_registers=56,stages=4,overlap=0,softmax=fixed",
      merged + "consumers=3,consumer_registers=152,producer_registers=56,stages=3,overlap=1,softmax=fixed",
      merged + "consumers=2,consumer_registers=232,producer_registers=40,stages=3,overlap=1,softmax=lazy",
      "family=sm90,block_q=64,block_k=64,stages=2,blocks_per_processor=2,consumers=1,consumer_registers=208,"
      "producer_registers=40,cluster=1,overlap=1,softmax=fixed"};
  for (const std::string& text : schedules) {
    CAPTURE(text);
    RuntimeOptions options;
    options.schedule = parse_schedule(text);
    const std::vector<std::uint64_t> seeds = fitting_seeds(*options.schedule, small_problems(), 2);
    REQUIRE(seeds.size() == 2);
    for (const std::uint64_t seed : seeds)
      CHECK(check(seed, small_problems(), options) == "");
  }
}

TEST_CASE("scores of every scale stay within the tolerances, with each way to follow the maximum") {
  for (const char* softmax : {"fixed", "lazy", "online"})
    for (const DataType dtype : {DataType::bf16, DataType::fp16})
      for (const double scale : {16.0, 64.0}) {
        testing::RandomLimits limits = small_problems();
        limits.pattern = PatternKind::dense;
        limits.dtype = dtype;
        limits.head_dim = 64;
        limits.layout = Layout::raster;
        limits.query_scale_max = scale;
        RuntimeOptions options;
        options.schedule = parse_schedule(three + "cluster=1,stages=4,overlap=1,softmax=" + softmax);
        CAPTURE(softmax);
        CHECK(check(static_cast<std::uint64_t>(scale) + 2, limits, options) == "");
        CHECK(check(static_cast<std::uint64_t>(scale) + 7, limits, options) == "");
      }
}
