// Video sparse attention's gradient in the emulator, behind its forward pass, against the float64 reference.
#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include <doctest/doctest.h>

#include "kernels/forms.hpp"
#include "support_environment.hpp"
#include "support_replay.hpp"
#include "support_seeds.hpp"
#include "support_video_sparse_backward.hpp"
#include <tilewright/emulator.hpp>
#include <tilewright/runtime.hpp>

using namespace tilewright;
using namespace tilewright::testing;

namespace {

/// TILEWRIGHT_VIDEO_SPARSE_PROBLEMS=N: how many random problems each family computes.
std::uint64_t problem_count(std::uint64_t without_a_wish) {
  return number_in_environment("TILEWRIGHT_VIDEO_SPARSE_PROBLEMS", without_a_wish);
}

VideoSparseLimits small_problems() { return small_video_sparse_gradient(); }

std::string complaint(RandomVideoSparseBackward& problem, std::shared_ptr<Executor> executor) {
  Runtime runtime(std::move(executor));
  return problem.check(
      runtime, [&](const VideoSparseAttention& call) { runtime.video_sparse_attention(call); },
      [&](const VideoSparseAttentionBackward& call) { runtime.video_sparse_attention_backward(call); });
}

template <class Check> std::string check_problem(std::uint64_t seed, const VideoSparseLimits& limits, Check check) {
  return check_shrinking(
      seed, [&](const ChoiceList* list) { return RandomVideoSparseBackward(seed, limits, list); }, check);
}

std::string check(std::uint64_t seed, const VideoSparseLimits& limits, const Architecture& architecture = {8, 0, 0}) {
  return check_problem(seed, limits, [&](RandomVideoSparseBackward& problem) {
    return complaint(problem, make_emulator({.seed = seed, .architecture = architecture}));
  });
}

/// Problems of every type, head size and layout under eight seeds, then others under one: `count` in all.
void check_problems(const Architecture& architecture, std::uint64_t count) {
  const std::vector<VideoSparseForm> forms = video_sparse_gradient_forms(architecture);
  for (const auto& [seed, limits] : forms)
    CHECK(check_problem(seed, limits, [&](RandomVideoSparseBackward& problem) {
            return complaint_under_seeds(architecture, [&](std::shared_ptr<Executor> executor) {
              return complaint(problem, std::move(executor));
            });
          }) == "");
  for (std::uint64_t i = forms.size(); i < count; ++i)
    CHECK(check(forms[0].seed + i, small_problems(), architecture) == "");
}

} // namespace

TEST_CASE("video sparse attention's gradient, generic family: every type, head size and layout under eight seeds") {
  check_problems(ampere, problem_count(16));
}

TEST_CASE("video sparse attention's gradient, Hopper family: every type, head size and layout under eight seeds") {
  check_problems(hopper, problem_count(12));
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
        CHECK(check(seed, limits) == "");
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
    CHECK(check(seed, limits) == "");
}

TEST_CASE("video sparse attention's gradient: more tiles than the coarse kernels have in shared memory at once") {
  VideoSparseLimits limits = small_problems();
  limits.canvas = Canvas{1, 11, 180};
  limits.layout = Layout::raster;
  limits.max_flops = 1;
  for (const std::int32_t head_dim : {64, 128}) {
    limits.head_dim = head_dim;
    CHECK(check(500, limits) == "");
  }
}

TEST_CASE("video sparse attention's gradient: no key at all") {
  VideoSparseLimits limits = small_problems();
  limits.layout = Layout::tiled;
  limits.keyless = true;
  limits.max_flops = 4e6;
  for (std::uint64_t seed = 600; seed < 603; ++seed)
    CHECK(check(seed, limits) == "");
}

TEST_CASE("video sparse attention's gradient: the same bits whatever the order of threads and without races") {
  VideoSparseLimits limits = small_problems();
  limits.max_flops = 3e6;
  for (const std::int32_t head_dim : {64, 128}) {
    limits.head_dim = head_dim;
    RandomVideoSparseBackward problem(301, limits);
    std::vector<std::byte> first;
    for (const std::uint64_t seed : {1U, 2U, 3U}) {
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
