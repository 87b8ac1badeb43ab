// Every default forward kernel x pattern x type x head size x layout in the emulator under eight seeds, against the
// float64 reference. (The backward kernels and video sparse attention: in their own tests.)
#include <doctest/doctest.h>

#include <string>

#include "support_random_problem.hpp"
#include "support_replay.hpp"
#include "support_seeds.hpp"
#include <tilewright/runtime.hpp>

using namespace tilewright;

namespace {

/// What is wrong under any of the seeds; empty where nothing is. The problem is the first that the limits give.
std::string check(const Architecture& architecture, const testing::RandomLimits& limits) {
  constexpr std::uint64_t seed = 1;
  const auto make = [&](const testing::ChoiceList* list) { return testing::RandomProblem(seed, limits, list); };
  return testing::check_shrinking(seed, make, [&](testing::RandomProblem& problem) {
    return testing::complaint_under_seeds(architecture, [&](std::shared_ptr<Executor> executor) {
      Runtime runtime(std::move(executor));
      return problem.check(
          [&](const AttentionForward& call, const Pattern& pattern) { runtime.attention_forward(call, pattern); });
    });
  });
}

void check_all(const Architecture& architecture) {
  for (const PatternKind pattern : {PatternKind::dense, PatternKind::sliding_tile, PatternKind::block_list})
    for (const DataType dtype : {DataType::bf16, DataType::fp16})
      for (const std::int32_t head_dim : {64, 128})
        for (const Layout layout : {Layout::raster, Layout::tiled}) {
          testing::RandomLimits limits;
          limits.max_tokens = 500;
          limits.max_text = 128;
          limits.max_flops = 8e6;
          limits.any_strides = architecture.major < 9; // boxes cannot follow every stride
          limits.pattern = pattern;
          limits.dtype = dtype;
          limits.head_dim = head_dim;
          limits.layout = layout;
          CHECK(check(architecture, limits) == "");
        }
}

} // namespace

TEST_CASE("every default sm_80 kernel under eight seeds") { check_all({8, 0, 0}); }
TEST_CASE("every default Hopper kernel under eight seeds") { check_all({9, 0, 'a'}); }
