// Video sparse attention's gradient in the emulator, behind its forward pass, against the float64 reference.
#include <cstdint>
#include <cstdlib>
#include <string>
#include <vector>

#include <doctest/doctest.h>

#include "support_video_sparse_backward.hpp"
#include <tilewright/emulator.hpp>
#include <tilewright/error.hpp>
#include <tilewright/runtime.hpp>

using namespace tilewright;
using namespace tilewright::testing;

namespace {

/// TILEWRIGHT_VIDEO_SPARSE_PROBLEMS=N: how many random problems each case computes.
std::uint64_t problem_count(std::uint64_t without_a_wish) {
  const char* wish = std::getenv("TILEWRIGHT_VIDEO_SPARSE_PROBLEMS");
  return wish == nullptr ? without_a_wish : std::stoull(wish);
}

VideoSparseLimits small_problems() {
  VideoSparseLimits limits;
  limits.max_tiles = 12;
  limits.max_tokens = 900;
  limits.max_flops = 1.2e7;
  return limits;
}

std::string check(std::uint64_t seed, const VideoSparseLimits& limits, const EmulatorOptions& options) {
  RandomVideoSparseBackward problem(seed, limits);
  try {
    Runtime runtime(make_emulator(options));
    return problem.check(
        runtime, [&](const VideoSparseAttention& call) { runtime.video_sparse_attention(call); },
        [&](const VideoSparseAttentionBackward& call) { runtime.video_sparse_attention_backward(call); });
  } catch (const Error& error) {
    return "seed " + std::to_string(seed) + ": " + problem.problem().description() + ": " + error.what();
  }
}

} // namespace

TEST_CASE("video sparse attention's gradient: sm_80") {
  for (std::uint64_t seed = 0; seed < problem_count(16); ++seed)
    CHECK(check(seed, small_problems(), {.seed = seed, .architecture = {8, 0, 0}}) == "");
}

TEST_CASE("video sparse attention's gradient: Hopper") {
  for (std::uint64_t seed = 100; seed < 100 + problem_count(8); ++seed)
    CHECK(check(seed, small_problems(), {.seed = seed, .architecture = {9, 0, 'a'}}) == "");
}

TEST_CASE("video sparse attention's gradient: activations of every scale") {
  VideoSparseLimits limits = small_problems();
  limits.head_dim = 64;
  limits.max_flops = 4e6;
  std::uint64_t seed = 200;
  for (const DataType dtype : {DataType::bf16, DataType::fp16})
    for (const double activation : {1.0, 4.0, 16.0}) {
      limits.dtype = dtype;
      limits.activation = activation;
      for (int i = 0; i < 2; ++i, ++seed)
        CHECK(check(seed, limits, {.seed = seed, .architecture = {8, 0, 0}}) == "");
    }
}

TEST_CASE("video sparse attention's gradient: empty tiles beside scores far below 0") {
  // Their score, 0, would have a probability of exp(100) and more: no number in fp16, and none in bf16 either.
  VideoSparseLimits limits = small_problems();
  limits.layout = Layout::tiled;
  limits.activation = 1.0;
  limits.opposed = true;
  limits.max_flops = 4e6;
  for (std::uint64_t seed = 400; seed < 406; ++seed)
    CHECK(check(seed, limits, {.seed = seed, .architecture = {8, 0, 0}}) == "");
}

TEST_CASE("video sparse attention's gradient: the same bits whatever the order of threads and without races") {
  VideoSparseLimits limits = small_problems();
  limits.max_flops = 3e6;
  for (const std::int32_t head_dim : {64, 128}) {
    limits.head_dim = head_dim;
    RandomVideoSparseBackward problem(301, limits);
    std::vector<std::byte> first;
    for (const std::uint64_t seed : {1, 2, 3}) {
      EmulatorOptions options{.seed = seed, .architecture = {8, 0, 0}};
      options.completion = seed == 1 ? Completion::latest : seed == 2 ? Completion::earliest : Completion::seeded;
      options.check_races = seed == 3;
      Runtime runtime(make_emulator(options));
      if (first.empty()) {
        CHECK(problem.check(
                  runtime, [&](const VideoSparseAttention& call) { runtime.video_sparse_attention(call); },
                  [&](const VideoSparseAttentionBackward& call) { runtime.video_sparse_attention_backward(call); }) ==
              "");
        first = problem.gradient_bytes();
      } else {
        problem.poison();
        runtime.video_sparse_attention_backward(problem.call());
        CHECK(problem.gradient_bytes() == first);
      }
    }
  }
}
