// Bad calls: each is refused in three parts that name the argument, before anything is launched or written.
#include <doctest/doctest.h>

#include <array>
#include <functional>
#include <limits>
#include <string>

#include "calls.hpp"
#include "fake_executor.hpp"

using namespace tilewright;
using namespace tilewright::testing;

namespace {

constexpr auto invalid = ErrorCode::invalid_argument;
constexpr auto unsupported = ErrorCode::unsupported;
constexpr std::int64_t huge = std::numeric_limits<std::int64_t>::max() / 4;

void check_nothing_happened(Calls& calls, const FakeExecutor& executor) {
  CHECK(executor.launches.empty());
  CHECK(calls.out.unwritten() == Calls::batch * calls.out.view().extents[1] * Calls::heads * Calls::head_dim);
  CHECK(calls.lse.unwritten() == Calls::batch * Calls::heads * calls.lse.view().extents[2]);
  CHECK(calls.out.damaged_bytes() + calls.lse.damaged_bytes() == 0);
}

/// problem: a part of what the error's first part has to say.
void check_refused(Calls& calls, const Pattern& pattern, ErrorCode code, const std::string& problem,
                   const RuntimeOptions& options = {}, std::set<const void*> foreign = {}) {
  const auto executor = std::make_shared<FakeExecutor>();
  executor->foreign = std::move(foreign);
  Runtime runtime(executor, options);
  try {
    runtime.attention_forward(calls.call, pattern);
    FAIL_CHECK("not refused: " << problem);
  } catch (const Error& error) {
    INFO(std::string(error.what()));
    CHECK(to_string(error.code()) == to_string(code));
    CHECK(error.problem().find(problem) != std::string::npos);
    CHECK(!error.allowed().empty());
    CHECK(!error.remedy().empty());
  }
  check_nothing_happened(calls, *executor);
}

struct Bad {
  ErrorCode code;
  const char* problem;
  std::function<void(Calls&)> spoil;
};

template <typename Fixture, typename PatternType>
void check_all_refused(std::initializer_list<Bad> cases, PatternType Calls::*pattern) {
  for (const Bad& bad : cases) {
    INFO(std::string(bad.problem));
    Fixture calls;
    bad.spoil(calls);
    check_refused(calls, calls.*pattern, bad.code, bad.problem);
  }
}

/// The tensor grows by this factor along a dimension without any more memory.
void expand(TensorView& view, std::size_t dimension, std::int64_t extent) {
  view.extents[dimension] = extent;
  view.strides[dimension] = 0;
}

} // namespace

TEST_CASE("the calls that the tests spoil are sound") {
  const auto executor = std::make_shared<FakeExecutor>();
  Runtime runtime(executor);
  SlidingCalls sliding;
  runtime.attention_forward(sliding.call, sliding.sliding);
  runtime.attention_forward(sliding.call, Dense{});
  ListCalls lists;
  lists.lists.validate_lists = true;
  runtime.attention_forward(lists.call, lists.lists);
  lists.make_tiled();
  lists.lists.query_sizes = lists.lists.key_sizes = lists.sizes.view();
  runtime.attention_forward(lists.call, lists.lists);
  CHECK(executor->launches.size() == 4);
}

TEST_CASE("element types and head sizes") {
  check_all_refused<SlidingCalls>(
      {{invalid, "q has dtype float32", [](Calls& c) { c.call.q.dtype = DataType::float32; }},
       {invalid, "k has dtype int32", [](Calls& c) { c.call.k.dtype = DataType::int32; }},
       {invalid, "v has dtype fp16 and q has bf16", [](Calls& c) { c.call.v.dtype = DataType::fp16; }},
       {invalid, "out has dtype fp16 and q has bf16", [](Calls& c) { c.call.out.dtype = DataType::fp16; }},
       {invalid, "lse has dtype bf16", [](Calls& c) { c.call.lse->dtype = DataType::bf16; }},
       {invalid, "v has head_dim 32 and q has 64", [](Calls& c) { c.call.v.extents[3] = 32; }},
       {unsupported, "head_dim is 48",
        [](Calls& c) {
          for (TensorView* view : {&c.call.q, &c.call.k, &c.call.v, &c.call.out})
            view->extents[3] = 48;
        }}},
      &Calls::sliding);
}

TEST_CASE("pointers") {
  const auto shift = [](TensorView& view, std::ptrdiff_t bytes) {
    view.data = static_cast<std::byte*>(view.data) + bytes;
  };
  check_all_refused<SlidingCalls>({{invalid, "q is a null pointer", [](Calls& c) { c.call.q.data = nullptr; }},
                                   {invalid, "out is a null pointer", [](Calls& c) { c.call.out.data = nullptr; }},
                                   {invalid, "lse is a null pointer", [](Calls& c) { c.call.lse->data = nullptr; }},
                                   {invalid, "k starts at 0x", [&](Calls& c) { shift(c.call.k, 8); }},
                                   {invalid, "out starts at 0x", [&](Calls& c) { shift(c.call.out, 2); }},
                                   {invalid, "lse starts at 0x", [&](Calls& c) { shift(*c.call.lse, 2); }}},
                                  &Calls::sliding);
  check_all_refused<ListCalls>({{invalid, "counts is a null pointer", [](Calls& c) { c.lists.counts.data = nullptr; }},
                                {invalid, "indices starts at 0x", [&](Calls& c) { shift(c.lists.indices, 1); }}},
                               &Calls::lists);
}

TEST_CASE("every pointer is asked for its device") {
  ListCalls calls;
  calls.make_tiled();
  calls.lists.query_sizes = calls.sizes.view();
  HostTensor key_sizes(DataType::int32, {Calls::tiles});
  calls.lists.key_sizes = key_sizes.view();
  const std::pair<const char*, const void*> arguments[] = {
      {"q", calls.call.q.data},
      {"k", calls.call.k.data},
      {"v", calls.call.v.data},
      {"out", calls.call.out.data},
      {"lse", calls.call.lse->data},
      {"counts", calls.lists.counts.data},
      {"indices", calls.lists.indices.data},
      {"query_sizes", calls.lists.query_sizes->data},
      {"key_sizes", calls.lists.key_sizes->data},
  };
  for (const auto& [name, pointer] : arguments)
    check_refused(calls, calls.lists, invalid, std::string(name) + " is foreign", {}, {pointer});
}

TEST_CASE("ranks, extents and strides") {
  check_all_refused<SlidingCalls>(
      {{invalid, "q has 3 dimensions", [](Calls& c) { c.call.q.rank = 3; }},
       {invalid, "lse has 4 dimensions", [](Calls& c) { c.call.lse->rank = 4; }},
       {invalid, "k has extent 0 in dimension 1", [](Calls& c) { c.call.k.extents[1] = 0; }},
       {invalid, "v has extent -1 in dimension 0", [](Calls& c) { c.call.v.extents[0] = -1; }},
       {invalid, "q has stride 2 in its last dimension", [](Calls& c) { c.call.q.strides[3] = 2; }},
       {invalid, "k has stride 132 in dimension 1", [](Calls& c) { c.call.k.strides[1] = 132; }},
       {invalid, "out has stride 65 in dimension 2", [](Calls& c) { c.call.out.strides[2] = 65; }},
       {invalid, "stride -64 in dimension 2", [](Calls& c) { c.call.v.strides[2] = -64; }},
       {invalid, "lse has stride 2 in its last dimension", [](Calls& c) { c.call.lse->strides[2] = 2; }},
       {invalid, "out has stride 0 in dimension 1", [](Calls& c) { c.call.out.strides[1] = 0; }},
       {invalid, "lse has stride 0 in dimension 0", [](Calls& c) { c.call.lse->strides[0] = 0; }}},
      &Calls::sliding);
}

TEST_CASE("extents that overflow") {
  check_all_refused<SlidingCalls>(
      {{invalid, "q has extent 272 and stride", [](Calls& c) { c.call.q.strides[1] = huge; }},
       {invalid, "k reaches to element", [](Calls& c) { c.call.k.strides[0] = huge; }},
       {invalid, "v has 2147483648 tokens", [](Calls& c) { expand(c.call.v, 1, std::int64_t{1} << 31); }},
       {invalid, "q has batch 2 and 4611686018427387904 heads",
        [](Calls& c) { expand(c.call.q, 2, std::int64_t{1} << 62); }},
       {invalid, "q has batch 1073741824 and 4 heads", [](Calls& c) { expand(c.call.q, 0, std::int64_t{1} << 30); }},
       {invalid, "canvas is '2048x2048x1024'",
        [](Calls& c) {
          c.sliding.canvas = {2048, 2048, 1024};
        }},
       {invalid, "canvas 1x1x268435456 takes 68719476736 rows in whole tiles of 256x1x1",
        [](Calls& c) {
          c.sliding.canvas = {1, 1, 1 << 28};
          c.sliding.tile = {256, 1, 1};
        }}},
      &Calls::sliding);
}

TEST_CASE("shapes that do not belong together") {
  check_all_refused<SlidingCalls>(
      {{invalid, "q has 4 heads and k has 3",
        [](Calls& c) {
          expand(c.call.k, 2, 3);
          expand(c.call.v, 2, 3);
        }},
       {invalid, "v's heads is 1 and k's heads is 2", [](Calls& c) { c.call.v.extents[2] = 1; }},
       {invalid, "k's batch is 1 and q's batch is 2", [](Calls& c) { c.call.k.extents[0] = 1; }},
       {invalid, "v's tokens is 100", [](Calls& c) { c.call.v.extents[1] = 100; }},
       {invalid, "out's tokens is 271 and q's tokens is 272", [](Calls& c) { c.call.out.extents[1] = 271; }},
       {invalid, "out's heads is 2", [](Calls& c) { c.call.out.extents[2] = 2; }},
       {invalid, "lse's batch is 1", [](Calls& c) { c.call.lse->extents[0] = 1; }},
       {invalid, "lse's heads is 3", [](Calls& c) { c.call.lse->extents[1] = 3; }},
       {invalid, "lse's tokens is 256", [](Calls& c) { c.call.lse->extents[2] = 256; }},
       {invalid, "scale is 0", [](Calls& c) { c.call.scale = 0.0f; }},
       {invalid, "scale is -1", [](Calls& c) { c.call.scale = -1.0f; }},
       {invalid, "scale is inf", [](Calls& c) { c.call.scale = std::numeric_limits<float>::infinity(); }},
       {invalid, "scale is nan", [](Calls& c) { c.call.scale = std::numeric_limits<float>::quiet_NaN(); }}},
      &Calls::sliding);
}

TEST_CASE("sliding tiles") {
  check_all_refused<SlidingCalls>(
      {{invalid, "a window is 0x3x3",
        [](Calls& c) {
          c.sliding.windows = {{0, 3, 3}};
        }},
       {invalid, "a window is 0x0x0",
        [](Calls& c) {
          c.sliding.windows = {{0, 0, 0}};
        }},
       {invalid, "a window is 3x3x-1",
        [](Calls& c) {
          c.sliding.windows = {{3, 3, 3}, {3, 3, 3}, {3, 3, -1}, {3, 3, 3}};
        }},
       {invalid, "0 windows are given for 4 heads", [](Calls& c) { c.sliding.windows.clear(); }},
       {invalid, "3 windows are given for 4 heads",
        [](Calls& c) {
          c.sliding.windows.resize(3, {3, 3, 3});
        }},
       {invalid, "text_length is 17", [](Calls& c) { c.sliding.text_length = Calls::text_rows + 1; }},
       {invalid, "text_length is -1", [](Calls& c) { c.sliding.text_length = -1; }},
       {invalid, "q has 272 tokens", [](Calls& c) { c.sliding.text_length.reset(); }},
       {invalid, "q has 272 tokens",
        [](Calls& c) {
          c.sliding.canvas = {8, 8, 8};
        }},
       {invalid, "q's tokens is 272 and k's tokens is 256",
        [](Calls& c) { c.call.k.extents[1] = c.call.v.extents[1] = Calls::video; }},
       {invalid, "canvas is '4x8x0'", [](Calls& c) { c.sliding.canvas.w = 0; }},
       {invalid, "tile is '4x-4x4'", [](Calls& c) { c.sliding.tile.h = -4; }},
       {unsupported, "tile is '4x4x5 (80 tokens)'",
        [](Calls& c) {
          c.sliding.tile = {4, 4, 5};
        }},
       {unsupported, "tile is '16x16x16 (4096 tokens)'",
        [](Calls& c) {
          c.sliding.tile = {16, 16, 16};
        }},
       {invalid, "tile is '512x1x1'",
        [](Calls& c) {
          c.sliding.tile = {512, 1, 1};
        }}},
      &Calls::sliding);
}

TEST_CASE("windows for more heads than a launch can carry") {
  SlidingCalls calls;
  constexpr std::int64_t heads = 130;
  constexpr std::int64_t tokens = Calls::video + Calls::text_rows;
  calls.call.q = TensorView::contiguous(calls.q.view().data, DataType::bf16, {1, tokens, heads, Calls::head_dim});
  calls.call.out = TensorView::contiguous(calls.out.view().data, DataType::bf16, {1, tokens, heads, Calls::head_dim});
  calls.call.k.extents[0] = calls.call.v.extents[0] = 1;
  calls.call.lse.reset();
  calls.sliding.windows.assign(heads, {3, 3, 3});
  check_refused(calls, calls.sliding, unsupported, "windows per head for 130 heads");
}

TEST_CASE("block lists") {
  check_all_refused<ListCalls>(
      {{invalid, "counts has 4 dimensions", [](Calls& c) { c.lists.counts.rank = 4; }},
       {invalid, "counts has dtype float32", [](Calls& c) { c.lists.counts.dtype = DataType::float32; }},
       {invalid, "indices has dtype bf16", [](Calls& c) { c.lists.indices.dtype = DataType::bf16; }},
       {invalid, "counts has extents 2 x 3 x 4", [](Calls& c) { c.lists.counts.extents[1] = 3; }},
       {invalid, "counts has extents 2 x 4 x 3", [](Calls& c) { c.lists.counts.extents[2] = 3; }},
       {invalid, "indices has extents 3 x 4 x 4", [](Calls& c) { c.lists.indices.extents[0] = 3; }},
       {invalid, "indices has extent 0 in dimension 3", [](Calls& c) { c.lists.indices.extents[3] = 0; }},
       {invalid, "indices has stride 2 in its last dimension", [](Calls& c) { c.lists.indices.strides[3] = 2; }},
       {invalid, "k has 256 tokens",
        [](Calls& c) {
          c.lists.key_canvas = Canvas{8, 8, 8};
        }},
       {unsupported, "key_tile is '1x1x8 (8 tokens)'",
        [](Calls& c) {
          c.lists.key_tile = Tile{1, 1, 8};
        }},
       {invalid, "query_sizes is given in the raster layout", [](Calls& c) { c.lists.query_sizes = c.sizes.view(); }},
       {invalid, "key_sizes is given in the raster layout", [](Calls& c) { c.lists.key_sizes = c.sizes.view(); }}},
      &Calls::lists);
}

TEST_CASE("sizes of blocks") {
  const std::pair<const char*, std::function<void(TensorView&)>> cases[] = {
      {"key_sizes is 3 and the number of tiles is 4", [](TensorView& sizes) { sizes.extents[0] = 3; }},
      {"key_sizes has dtype fp16", [](TensorView& sizes) { sizes.dtype = DataType::fp16; }},
      {"key_sizes has 3 dimensions", [](TensorView& sizes) { sizes.rank = 3; }},
      {"key_sizes is 3 and the batch is 2",
       [](TensorView& sizes) {
         sizes = TensorView::contiguous(sizes.data, DataType::int32, {3, Calls::tiles});
       }},
  };
  for (const auto& [problem, spoil] : cases) {
    ListCalls calls;
    calls.make_tiled();
    calls.lists.key_sizes = calls.sizes.view();
    spoil(*calls.lists.key_sizes);
    check_refused(calls, calls.lists, invalid, problem);
  }
}

TEST_CASE("what lists hold is checked on request") {
  struct BadEntry {
    const char* problem;
    HostTensor Calls::*tensor;
    std::array<std::int64_t, 4> index;
    double value;
  };
  const BadEntry cases[] = {
      {"counts holds 4 at batch 1, head 3, query tile 2", &Calls::counts, {1, 3, 2, 0}, 4},
      {"counts holds -1 at batch 0, head 0, query tile 0", &Calls::counts, {0, 0, 0, 0}, -1},
      {"indices holds 4 behind 1 at batch 0, head 1, query tile 3, entry 1", &Calls::indices, {0, 1, 3, 1}, 4},
      {"indices holds -1 behind -1 at batch 1, head 0, query tile 0, entry 0", &Calls::indices, {1, 0, 0, 0}, -1},
      {"indices holds 1 behind 1 at batch 1, head 2, query tile 1, entry 1", &Calls::indices, {1, 2, 1, 1}, 1},
  };
  for (const BadEntry& bad : cases) {
    ListCalls calls;
    (calls.*bad.tensor).fill([&](auto... index) {
      return std::array{index...} == bad.index ? std::optional(bad.value) : std::nullopt;
    });
    calls.lists.validate_lists = true;
    check_refused(calls, calls.lists, invalid, bad.problem);
  }
}

TEST_CASE("schedules and families that cannot compute the call") {
  SlidingCalls calls;
  Schedule schedule =
      Runtime(std::make_shared<FakeExecutor>()).spec_of(Runtime::problem_of(calls.call, calls.sliding)).schedule;
  schedule.block_q = 128; // a tile has 64 tokens
  check_refused(calls, calls.sliding, unsupported, "block_q=128", {.schedule = schedule});
  check_refused(calls, calls.sliding, unsupported, "sm_80", {.family = Family::sm90});
}
