// Every default kernel x pattern x type x head size x layout in the emulator under eight seeds, against the float64
// reference; two of the seeds let everything happen as late and as early as it may, one looks for races.
#include <doctest/doctest.h>

#include <string>

#include <fmt/format.h>

#include "support_random_problem.hpp"
#include <tilewright/emulator.hpp>
#include <tilewright/error.hpp>
#include <tilewright/runtime.hpp>

using namespace tilewright;

namespace {

constexpr std::uint64_t seeds = 8;

/// Not for races: in the tiled layout Hopper's consumers each zero the same padding values before their products, which
/// is a race between equal values.
bool stores_equal_values(const Architecture& architecture, Layout layout) {
  return architecture.major >= 9 && layout == Layout::tiled;
}

EmulatorOptions options_of(const Architecture& architecture, Layout layout, std::uint64_t seed) {
  EmulatorOptions options;
  options.architecture = architecture;
  options.seed = seed;
  options.completion = seed == 0 ? Completion::latest : seed == 1 ? Completion::earliest : Completion::seeded;
  options.check_races = seed == 2 && !stores_equal_values(architecture, layout);
  return options;
}

/// What is wrong under any of the seeds; empty where nothing is. The problem is the first that the limits give.
std::string check(const Architecture& architecture, const testing::RandomLimits& limits) {
  testing::RandomProblem problem(1, limits);
  for (std::uint64_t seed = 0; seed < seeds; ++seed) {
    Runtime runtime(make_emulator(options_of(architecture, *limits.layout, seed)));
    std::string wrong;
    try {
      wrong = problem.check(
          [&](const AttentionForward& call, const Pattern& pattern) { runtime.attention_forward(call, pattern); });
    } catch (const Error& error) {
      wrong = error.what();
    }
    if (!wrong.empty())
      return fmt::format("emulator seed {}: {}", seed, wrong);
  }
  return {};
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
