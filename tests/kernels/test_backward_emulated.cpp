// The backward kernels in the emulator against the float64 reference.
#include <cstdint>
#include <string>

#include <doctest/doctest.h>

#include "support_random_backward.hpp"
#include <tilewright/emulator.hpp>
#include <tilewright/error.hpp>
#include <tilewright/runtime.hpp>

using namespace tilewright;

namespace {

testing::RandomLimits small_problems() {
  testing::RandomLimits limits;
  limits.max_tokens = 400;
  limits.max_text = 150;
  limits.max_flops = 1e7;
  return limits;
}

std::string check(std::uint64_t seed, const testing::RandomLimits& limits, double scale = 1,
                  const RuntimeOptions& options = {}) {
  try {
    testing::RandomBackward problem(seed, limits, scale);
    Runtime runtime(make_emulator({.seed = seed}), options);
    return problem.check(
        [&](const AttentionBackward& call, const Pattern& pattern) { runtime.attention_backward(call, pattern); });
  } catch (const Error& error) {
    return error.what();
  }
}

} // namespace

TEST_CASE("backward, sm_80: every pattern, type, head size and layout") {
  std::uint64_t seed = 0;
  for (const PatternKind pattern : {PatternKind::dense, PatternKind::sliding_tile, PatternKind::block_list})
    for (const DataType dtype : {DataType::bf16, DataType::fp16})
      for (const std::int32_t head_dim : {64, 128})
        for (const Layout layout : {Layout::raster, Layout::tiled}) {
          testing::RandomLimits limits = small_problems();
          limits.pattern = pattern;
          limits.dtype = dtype;
          limits.head_dim = head_dim;
          limits.layout = layout;
          CAPTURE(seed);
          CHECK(check(seed++, limits) == "");
          CHECK(check(seed++, limits) == "");
        }
}

TEST_CASE("backward, sm_80: activations of every scale, without a NaN") {
  testing::RandomLimits limits = small_problems();
  limits.head_dim = 64;
  limits.max_flops = 4e6;
  for (const DataType dtype : {DataType::bf16, DataType::fp16})
    for (const double scale : {4.0, 16.0})
      for (const std::uint64_t seed : {101, 102, 103}) {
        limits.dtype = dtype;
        CAPTURE(seed);
        CHECK(check(seed, limits, scale) == "");
      }
}

TEST_CASE("backward, sm_80: the same bits whatever the order of threads") {
  testing::RandomLimits limits = small_problems();
  limits.head_dim = 64;
  limits.max_flops = 2e6;
  for (const PatternKind pattern : {PatternKind::dense, PatternKind::sliding_tile, PatternKind::block_list}) {
    limits.pattern = pattern;
    testing::RandomBackward problem(7, limits);
    std::vector<std::byte> first;
    for (const std::uint64_t seed : {1, 2, 3}) {
      Runtime runtime(make_emulator({.seed = seed}));
      problem.poison();
      runtime.attention_backward(problem.call(), problem.pattern());
      if (first.empty())
        first = problem.gradient_bytes();
      else
        CHECK(problem.gradient_bytes() == first);
    }
  }
}
