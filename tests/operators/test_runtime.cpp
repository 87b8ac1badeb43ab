// The runtime above a fake executor: which problem a call is, when kernels are made, and what a launch is given.
#include <doctest/doctest.h>

#include <algorithm>
#include <atomic>
#include <map>
#include <thread>

#include "calls.hpp"
#include "fake_executor.hpp"
#include "kernels/attention_parameters.cuh"
#include "kernels/mapped_attention_parameters.cuh"
#include "schedule/feasibility.hpp"

using namespace tilewright;
using namespace tilewright::testing;

namespace {

std::string line_of(const AttentionForward& call, const Pattern& pattern) {
  return to_string(Runtime::problem_of(call, pattern));
}

const std::string types = ",dtype=bf16,head_dim=64,layout=raster";

/// The one launch of a call.
RecordedLaunch launch_of(const AttentionForward& call, const Pattern& pattern, Stream stream = nullptr,
                         const RuntimeOptions& options = {}) {
  const auto executor = std::make_shared<FakeExecutor>();
  Runtime(executor, options).attention_forward(call, pattern, stream);
  REQUIRE(executor->launches.size() == 1);
  return executor->launches.front();
}

void check_strides(const Strides& strides, std::int64_t batch, std::int64_t head, std::int64_t token) {
  CHECK(strides.batch == batch);
  CHECK(strides.head == head);
  CHECK(strides.token == token);
}

void check_grid(const TokenGrid& grid, const Extent3& tokens, const Extent3& tiles) {
  CHECK(Extent3{grid.t, grid.h, grid.w} == tokens);
  CHECK(Extent3{grid.tiles_t, grid.tiles_h, grid.tiles_w} == tiles);
}

} // namespace

TEST_CASE("a dense call's problem says whether the keys are a multiple of the key block") {
  SlidingCalls calls; // 272 tokens
  CHECK(line_of(calls.call, Dense{}) == "attention_forward:pattern=dense,edges=clipped" + types);
  calls.call.k.extents[1] = calls.call.v.extents[1] = 192;
  CHECK(line_of(calls.call, Dense{}) == "attention_forward:pattern=dense,edges=full" + types);
  for (TensorView* view : {&calls.call.q, &calls.call.k, &calls.call.v, &calls.call.out})
    view->dtype = DataType::fp16;
  CHECK(line_of(calls.call, Dense{}) ==
        "attention_forward:pattern=dense,edges=full,dtype=fp16,head_dim=64,layout=raster");
}

TEST_CASE("a sliding tile call's problem names a window for all heads, text and ragged edges") {
  const std::string start = "attention_forward:pattern=sliding_tile,tile=4x4x4,window=";
  SlidingCalls calls;
  CHECK(line_of(calls.call, calls.sliding) == start + "1x3x3,text=1,edges=full" + types);
  calls.sliding.text_length = 0; // text that this call leaves empty
  CHECK(line_of(calls.call, calls.sliding) == start + "1x3x3,text=1,edges=full" + types);
  calls.sliding.windows = {{1, 1, 1}, {1, 3, 3}, {1, 2, 2}, {9, 9, 9}};
  CHECK(line_of(calls.call, calls.sliding) == start + "per_head,text=1,edges=full" + types);
  calls.sliding.canvas = {4, 8, 7}; // the rest of the rows is text
  CHECK(line_of(calls.call, calls.sliding) == start + "per_head,text=1,edges=clipped" + types);
  ListCalls without_text;
  without_text.sliding.text_length.reset();
  CHECK(line_of(without_text.call, without_text.sliding) == start + "1x3x3,text=0,edges=full" + types);
}

TEST_CASE("a block list call's problem names both tiles and how sizes are known") {
  const std::string start = "attention_forward:pattern=block_list,tile=4x4x4,";
  ListCalls calls;
  CHECK(line_of(calls.call, calls.lists) == start + "edges=full" + types);
  calls.lists.key_tile = Tile{2, 4, 8};
  CHECK(line_of(calls.call, calls.lists) == start + "key_tile=2x4x8,edges=full" + types);
  calls.lists.key_canvas = Canvas{1, 16, 16}; // ragged for this tile
  CHECK(line_of(calls.call, calls.lists) == start + "key_tile=2x4x8,edges=clipped" + types);

  ListCalls sized;
  sized.make_tiled();
  sized.lists.key_sizes = sized.sizes.view();
  CHECK(line_of(sized.call, sized.lists) == start + "edges=sized,dtype=bf16,head_dim=64,layout=tiled");

  const BlockList linear = BlockList::linear(256, 256, 64, 128, calls.lists.counts, calls.lists.indices);
  CHECK(line_of(calls.call, linear) ==
        "attention_forward:pattern=block_list,tile=1x1x64,key_tile=1x1x128,edges=full" + types);
}

TEST_CASE("prepare makes every variant, so that calls ask for nothing") {
  const auto executor = std::make_shared<FakeExecutor>();
  Runtime runtime(executor);
  const Problem open = parse_problem("attention_forward:pattern=sliding_tile,tile=4x4x4,window=1x3x3,head_dim=64");
  runtime.prepare(open);
  CHECK(executor->launches.empty());
  std::vector<std::string> asked;
  for (const Spec& spec : executor->asked)
    asked.push_back(to_string(spec.problem));
  const std::string start = "attention_forward:pattern=sliding_tile,tile=4x4x4,window=1x3x3,";
  std::sort(asked.begin(), asked.end());
  CHECK(asked == std::vector{start + "text=0,edges=clipped" + types, start + "text=0,edges=full" + types,
                             start + "text=1,edges=clipped" + types, start + "text=1,edges=full" + types});
  runtime.prepare(open);
  SlidingCalls calls;
  runtime.attention_forward(calls.call, calls.sliding);
  CHECK(executor->asked.size() == 4);
  REQUIRE(executor->launches.size() == 1);
  CHECK(to_string(executor->launches[0].spec) ==
        to_string(runtime.spec_of(Runtime::problem_of(calls.call, calls.sliding))));
  Problem impossible = open;
  impossible.head_dim = 80;
  CHECK_THROWS_AS(runtime.prepare(impossible), const Error&);
}

TEST_CASE("calls that differ in run-time values share one kernel") {
  const auto executor = std::make_shared<FakeExecutor>();
  Runtime runtime(executor);
  SlidingCalls calls;
  calls.sliding.windows.assign(Calls::heads, {1, 3, 3});
  runtime.attention_forward(calls.call, calls.sliding);
  CHECK(executor->asked.size() == 1);
  calls.sliding.windows.back() = {1, 1, 1};
  calls.sliding.text_length = 3;
  calls.call.scale = 0.5f;
  calls.call.lse.reset();
  runtime.attention_forward(calls.call, calls.sliding);
  CHECK(executor->asked.size() == 1);
  REQUIRE(executor->launches.size() == 2);
  CHECK(executor->launches[0].kernel == executor->launches[1].kernel);
  runtime.attention_forward(calls.call, Dense{});
  CHECK(executor->asked.size() == 2);
}

TEST_CASE("eight threads share one runtime") {
  const auto executor = std::make_shared<FakeExecutor>();
  Runtime runtime(executor);
  SlidingCalls sliding, per_head;
  per_head.sliding.windows.assign(Calls::heads, {1, 1, 1});
  ListCalls lists;
  constexpr int threads = 8, rounds = 200, problems = 4;
  std::atomic<int> waiting = threads;
  std::vector<std::thread> pool;
  for (int i = 0; i < threads; ++i)
    pool.emplace_back([&] {
      for (--waiting; waiting > 0;)
        std::this_thread::yield(); // begin together, with nothing prepared
      for (int round = 0; round < rounds; ++round) {
        runtime.attention_forward(sliding.call, sliding.sliding);
        runtime.attention_forward(per_head.call, per_head.sliding);
        runtime.attention_forward(lists.call, lists.lists);
        runtime.attention_forward(sliding.call, Dense{});
      }
    });
  for (std::thread& thread : pool)
    thread.join();
  CHECK(executor->launches.size() == threads * rounds * problems);
  CHECK(executor->asked.size() >= problems);
  CHECK(executor->asked.size() <= threads * problems);
  std::map<std::string, std::pair<const Kernel*, std::size_t>> launched;
  for (const RecordedLaunch& launch : executor->launches) {
    auto& [kernel, times] = launched.try_emplace(to_string(launch.spec.problem), launch.kernel, 0).first->second;
    CHECK(kernel == launch.kernel); // the first one made is everyone's
    ++times;
  }
  CHECK(launched.size() == problems);
  for (const auto& [problem, kernel_and_times] : launched)
    CHECK(kernel_and_times.second == threads * rounds);
}

TEST_CASE("a launch of the generic family: a thread block for each block of queries") {
  SlidingCalls calls;
  int stream = 0;
  const RecordedLaunch launch = launch_of(calls.call, calls.sliding, &stream);
  CHECK(launch.stream == &stream);
  const Schedule& schedule = launch.spec.schedule;
  REQUIRE(schedule.family == Family::sm80);
  CHECK(to_string(launch.spec.architecture) == "sm_80");
  CHECK(schedule.block_q == 64);                 // a tile
  CHECK(launch.shape.grid.x == 2 * 4 * (4 + 1)); // batch, heads, video tiles and one block of text
  CHECK(launch.shape.grid.y * launch.shape.grid.z == 1);
  CHECK(launch.shape.block.x == 32U * schedule.warps);
  CHECK(launch.shape.block.y * launch.shape.block.z == 1);
  CHECK(launch.shape.cluster.x == 1);
  CHECK(static_cast<std::int32_t>(launch.shape.shared_bytes) ==
        schedule::shared_memory_bytes(launch.spec.problem, schedule));
}

TEST_CASE("an insisted schedule cuts a dense sequence into its blocks") {
  SlidingCalls calls; // 272 tokens
  const RuntimeOptions options{.schedule = parse_schedule("family=sm80,block_q=64,block_k=32,stages=3,warps=4,"
                                                          "blocks_per_processor=1,softmax=online")};
  const RecordedLaunch launch = launch_of(calls.call, Dense{}, nullptr, options);
  CHECK(launch.spec.schedule == *options.schedule);
  CHECK(launch.shape.grid.x == 2 * 4 * 5);
  const auto p = launch.as<AttentionArguments<DenseParameters>>().attention;
  check_grid(p.query_grid, {1, 1, 272}, {1, 1, 5});
  check_grid(p.key_grid, {1, 1, 272}, {1, 1, 9});
  CHECK(p.query_blocks == 5);
  CHECK(p.text_rows == 0);
}

TEST_CASE("parameters of a sliding tile call") {
  SlidingCalls calls;
  const auto arguments = launch_of(calls.call, calls.sliding).as<AttentionArguments<SlidingTileParameters>>();
  const AttentionParameters& p = arguments.attention;
  CHECK(p.query == calls.call.q.data);
  CHECK(p.key == calls.call.k.data);
  CHECK(p.value == calls.call.v.data);
  CHECK(p.output == calls.call.out.data);
  CHECK(p.log_sum_exp == calls.call.lse->data);
  check_strides(p.query_strides, 272 * 4 * 64, 64, 4 * 64);
  check_strides(p.key_strides, 272 * 2 * 64, 64, 2 * 64);
  check_strides(p.value_strides, 272 * 2 * 64, 64, 2 * 64);
  check_strides(p.output_strides, 272 * 4 * 64, 64, 4 * 64);
  CHECK(p.log_sum_exp_batch_stride == 4 * 272);
  CHECK(p.log_sum_exp_head_stride == 272);
  check_grid(p.query_grid, {4, 8, 8}, {1, 2, 2});
  check_grid(p.key_grid, {4, 8, 8}, {1, 2, 2});
  CHECK(p.heads == 4);
  CHECK(p.heads_per_kv_head == 2);
  CHECK(p.query_blocks == 5);
  CHECK(p.text_rows == 16);
  CHECK(p.text_length == 9);
  CHECK(p.scale_log2 == doctest::Approx(1.4426950408889634 / 8)); // log2(e) / sqrt(64)

  calls.call.scale = 3.0f;
  calls.call.lse.reset();
  calls.sliding.windows = {{1, 2, 3}, {4, 5, 6}, {7, 8, 9}, {100'000, 1, 65'535}};
  const auto per_head = launch_of(calls.call, calls.sliding).as<AttentionArguments<SlidingTileParameters>>();
  CHECK(per_head.attention.scale_log2 == doctest::Approx(3 * 1.4426950408889634));
  CHECK(per_head.attention.log_sum_exp == nullptr);
  constexpr std::uint16_t expected[][3] = {{1, 2, 3}, {4, 5, 6}, {7, 8, 9}, {65'535, 1, 65'535}};
  for (std::size_t head = 0; head < std::size(expected); ++head)
    for (std::size_t axis = 0; axis < 3; ++axis)
      CHECK(per_head.pattern.windows[head][axis] == expected[head][axis]);
}

TEST_CASE("parameters of a block list call: shared lists have stride 0") {
  ListCalls calls;
  calls.make_tiled();
  calls.lists.query_sizes = calls.sizes.view();
  const HostTensor key_sizes(DataType::int32, {Calls::batch, Calls::tiles});
  calls.lists.key_sizes = key_sizes.view();
  auto p = launch_of(calls.call, calls.lists).as<AttentionArguments<BlockListParameters>>();
  check_strides(p.attention.query_strides, 4 * 256 * 64, 256 * 64, 64);
  check_strides(p.attention.key_strides, 2 * 256 * 64, 256 * 64, 64);
  CHECK(p.pattern.counts == calls.lists.counts.data);
  CHECK(p.pattern.indices == calls.lists.indices.data);
  CHECK(p.pattern.query_sizes == calls.lists.query_sizes->data);
  CHECK(p.pattern.key_sizes == calls.lists.key_sizes->data);
  CHECK(p.pattern.count_batch_stride == 4 * 4);
  CHECK(p.pattern.count_head_stride == 4);
  CHECK(p.pattern.index_batch_stride == 4 * 4 * 3);
  CHECK(p.pattern.index_head_stride == 4 * 3);
  CHECK(p.pattern.index_tile_stride == 3);
  CHECK(p.pattern.query_size_batch_stride == 0);
  CHECK(p.pattern.key_size_batch_stride == 4);

  calls.lists.counts = TensorView::contiguous(calls.lists.counts.data, DataType::int32, {1, 4, 4});
  calls.lists.indices = TensorView::contiguous(calls.lists.indices.data, DataType::int32, {2, 1, 4, 3});
  calls.lists.query_sizes.reset();
  calls.lists.key_sizes.reset();
  p = launch_of(calls.call, calls.lists).as<AttentionArguments<BlockListParameters>>();
  CHECK(p.pattern.query_sizes == nullptr);
  CHECK(p.pattern.key_sizes == nullptr);
  CHECK(p.pattern.count_batch_stride == 0);
  CHECK(p.pattern.count_head_stride == 4);
  CHECK(p.pattern.index_batch_stride == 4 * 3);
  CHECK(p.pattern.index_head_stride == 0);
}

TEST_CASE("a launch of the Hopper family: maps for video and text, thread blocks that stay") {
  SlidingCalls calls;
  const auto executor = std::make_shared<FakeExecutor>(Architecture{9, 0, 0});
  Runtime runtime(executor, {.family = Family::sm90});
  runtime.attention_forward(calls.call, calls.sliding);
  REQUIRE(executor->launches.size() == 1);
  const RecordedLaunch& launch = executor->launches.front();
  const Schedule& schedule = launch.spec.schedule;
  CHECK(to_string(launch.spec.architecture) == "sm_90a");
  CHECK(executor->maps.size() == 8); // q, k, v and out, twice
  CHECK(launch.shape.block.x == 128U * (1U + schedule.consumers));
  CHECK(launch.shape.cluster.x == schedule.cluster);
  CHECK(launch.shape.grid.x % schedule.cluster == 0);
  CHECK(launch.shape.grid.x <= 100U * schedule.blocks_per_processor);
  const auto p = launch.as<MappedAttentionArguments<SlidingTileParameters>>();
  CHECK(p.call.attention.text_length == 9);
  CHECK(p.call.attention.log_sum_exp == calls.call.lse->data);
}
