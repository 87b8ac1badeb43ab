// The backward kernels in the emulator against the float64 reference.
#include <cstdint>
#include <string>

#include <doctest/doctest.h>

#include "kernels/forms.hpp"
#include "operators/launch.hpp"
#include "support_random_backward.hpp"
#include "support_replay.hpp"
#include "support_seeds.hpp"
#include <tilewright/emulator.hpp>
#include <tilewright/runtime.hpp>

using namespace tilewright;

namespace {

testing::RandomLimits small_problems() { return testing::small_backward(testing::ampere); }

template <class Check>
std::string check_shrinking(std::uint64_t seed, const testing::RandomLimits& limits, double scale, Check check) {
  return testing::check_shrinking(
      seed, [&](const testing::ChoiceList* list) { return testing::RandomBackward(seed, limits, scale, list); }, check);
}

std::string check(std::uint64_t seed, const testing::RandomLimits& limits, double scale = 1) {
  return check_shrinking(seed, limits, scale, [&](testing::RandomBackward& problem) {
    Runtime runtime(make_emulator({.seed = seed}));
    return problem.check(
        [&](const AttentionBackward& call, const Pattern& pattern) { runtime.attention_backward(call, pattern); });
  });
}

std::string check_under_seeds(std::uint64_t seed, const testing::RandomLimits& limits) {
  return check_shrinking(seed, limits, 1, [&](testing::RandomBackward& problem) {
    return testing::complaint_under_seeds(testing::ampere, [&](std::shared_ptr<Executor> executor) {
      Runtime runtime(std::move(executor));
      return problem.check(
          [&](const AttentionBackward& call, const Pattern& pattern) { runtime.attention_backward(call, pattern); });
    });
  });
}

} // namespace

TEST_CASE("backward, sm_80: every pattern, type, head size and layout under eight seeds") {
  for (const auto& [seed, limits] : testing::backward_forms(testing::ampere)) {
    CAPTURE(seed);
    CHECK(check_under_seeds(seed, limits) == "");
    CHECK(check(seed + 1, limits) == "");
  }
}

TEST_CASE("backward, sm_80: activations of every scale, without a NaN") {
  testing::RandomLimits limits = small_problems();
  limits.head_dim = 64;
  limits.max_flops = 4e6;
  for (const DataType dtype : {DataType::bf16, DataType::fp16})
    for (const double scale : {4.0, 16.0})
      for (const std::uint64_t seed : {101U, 102U, 103U}) {
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
    for (const std::uint64_t seed : {1U, 2U, 3U}) {
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

TEST_CASE("backward: lists that the caller has transposed give the same bits") {
  testing::RandomLimits limits = small_problems();
  limits.head_dim = 64;
  limits.max_flops = 2e6;
  limits.pattern = PatternKind::block_list;
  for (const std::uint64_t seed : {11U, 12U}) {
    testing::RandomBackward problem(seed, limits);
    Runtime runtime(make_emulator({}));
    problem.poison();
    runtime.attention_backward(problem.call(), problem.pattern());
    const std::vector<std::byte> own = problem.gradient_bytes();

    const auto& lists = std::get<BlockList>(problem.pattern());
    const TokenGrid grid =
        operators::grid_of(lists.key_canvas.value_or(lists.canvas), lists.key_tile.value_or(lists.tile));
    const std::int64_t tiles = std::int64_t{grid.tiles_t} * grid.tiles_h * grid.tiles_w;
    const std::int64_t batch = std::max(lists.counts.extents[0], lists.indices.extents[0]);
    const std::int64_t heads = std::max(lists.counts.extents[1], lists.indices.extents[1]);
    testing::HostTensor key_counts(DataType::int32, {batch, heads, tiles}),
        offsets(DataType::int32, {batch, heads, tiles + 1}),
        query_indices(DataType::int32, {batch, heads, lists.counts.extents[2] * lists.indices.extents[3]});
    AttentionBackward call = problem.call();
    call.transposed = {lists.counts, lists.indices, key_counts.view(), offsets.view(), query_indices.view()};
    runtime.transpose_lists(*call.transposed);
    problem.poison();
    runtime.attention_backward(call, problem.pattern());
    CHECK(problem.gradient_bytes() == own);
  }
}

TEST_CASE("backward: padding, rows without keys and keys that nobody sees get zeros, whatever the memory holds") {
  testing::RandomLimits limits = small_problems();
  limits.head_dim = 64;
  limits.max_flops = 2e6;
  limits.any_strides = false; // for both families
  for (const Family family : {Family::sm80, Family::sm90})
    for (const Layout layout : {Layout::tiled, Layout::raster}) {
      limits.pattern = PatternKind::block_list;
      limits.layout = layout;
      std::size_t query_rows = 0, key_rows = 0;
      for (std::uint64_t seed = 40; seed < 44; ++seed) {
        testing::RandomBackward problem(seed, limits);
        Runtime runtime(make_emulator({.seed = seed, .architecture = {9, 0, family == Family::sm90 ? 'a' : char{0}}}),
                        {.family = family});
        CHECK(problem.check([&](const AttentionBackward& call, const Pattern& pattern) {
          runtime.attention_backward(call, pattern);
        }) == "");
        query_rows += problem.empty_query_rows();
        key_rows += problem.empty_key_rows();
      }
      CHECK(query_rows > 0); // else the problems had none, and this test proved nothing
      CHECK(key_rows > 0);
    }
}
