// Video sparse attention's calls without a device: what is launched, what is refused, and the sparsity conventions.
#include <doctest/doctest.h>

#include <functional>
#include <limits>
#include <string>

#include "fake_executor.hpp"
#include "kernels/tile_parameters.cuh"
#include "support_tensor.hpp"
#include <tilewright/runtime.hpp>

using namespace tilewright;
using namespace tilewright::testing;

namespace {

/// 2 batches, 4 heads over 2, a canvas of 4x8x9 (6 tiles), gate, LSE and the fine result; topk 2.
struct VideoCalls {
  static constexpr std::int64_t batch = 2, heads = 4, kv_heads = 2, tokens = 288, tiles = 6;

  HostTensor q{DataType::bf16, {batch, tokens, heads, 64}}, k{DataType::bf16, {batch, tokens, kv_heads, 64}},
      v{DataType::bf16, {batch, tokens, kv_heads, 64}}, out{DataType::bf16, {batch, tokens, heads, 64}},
      gate{DataType::bf16, {batch, tokens, heads, 64}}, fine{DataType::bf16, {batch, tokens, heads, 64}},
      lse{DataType::float32, {batch, heads, tokens}}, sizes{DataType::int32, {tiles}},
      memory{DataType::float32, {1 << 16}};
  VideoSparseAttention call{.q = q.view(), .k = k.view(), .v = v.view(), .out = out.view(), .canvas = {4, 8, 9}};

  VideoCalls() {
    call.gate = gate.view();
    call.lse = lse.view();
    call.fine = fine.view();
    call.topk = 2;
    const auto address = reinterpret_cast<std::uintptr_t>(memory.view().data);
    call.workspace = reinterpret_cast<void*>((address + 255) / 256 * 256);
    call.workspace_bytes = (1 << 18) - 256;
  }
  [[nodiscard]] bool untouched() {
    return out.unwritten() == batch * tokens * heads * 64 && fine.unwritten() == batch * tokens * heads * 64 &&
           lse.unwritten() == batch * heads * tokens && memory.unwritten() == 1 << 16;
  }
};

struct Bad {
  const char* problem; // a part of what the error's first part has to say
  std::function<void(VideoCalls&)> spoil;
};

} // namespace

TEST_CASE("the whole operator is three launches; its selection is the first two of them") {
  VideoCalls calls;
  const auto executor = std::make_shared<FakeExecutor>();
  Runtime runtime(executor);
  CHECK(to_string(Runtime::problem_of(calls.call)) ==
        "video_sparse_attention:tile=4x4x4,edges=clipped,blend=gated,dtype=bf16,head_dim=64,layout=raster");
  runtime.prepare(Runtime::problem_of(calls.call));
  CHECK(executor->asked.size() == 3);
  runtime.video_sparse_selection(calls.call);
  REQUIRE(executor->launches.size() == 2);
  runtime.video_sparse_attention(calls.call);
  REQUIRE(executor->launches.size() == 5);
  CHECK(executor->asked.size() == 3); // all were prepared
  const auto pool = executor->launches[2].as<PoolArguments>();
  CHECK(pool.means == VideoCalls::batch * VideoCalls::tiles * (VideoCalls::heads + 2 * VideoCalls::kv_heads));
  const auto select = executor->launches[3].as<SelectArguments>();
  const VideoSparseWorkspace workspace = runtime.workspace_of(calls.call);
  CHECK(select.query_means == workspace.pooled_query.data);
  CHECK(select.topk == 2);
  CHECK(select.strips == nullptr);
  const auto fine = executor->launches[4].as<AttentionArguments<BlockListParameters>>();
  CHECK(fine.attention.blend.coarse == workspace.coarse_output.data);
  CHECK(fine.attention.blend.gate == calls.gate.view().data);
  CHECK(fine.attention.blend.fine == calls.fine.view().data);
  CHECK(fine.pattern.indices == workspace.indices.data);
}

TEST_CASE("a workspace's parts follow each other, aligned, without overlap") {
  VideoCalls calls;
  Runtime runtime(std::make_shared<FakeExecutor>());
  const VideoSparseWorkspace w = runtime.workspace_of(calls.call);
  const TensorView* last = nullptr;
  const auto end = [](const TensorView& view) {
    return static_cast<std::byte*>(view.data) +
           view.extents[0] * view.strides[0] * static_cast<std::int64_t>(size_of(view.dtype));
  };
  for (const TensorView* view :
       {&w.pooled_query, &w.pooled_key, &w.pooled_value, &w.coarse_output, &w.coarse_lse, &w.counts, &w.indices}) {
    CHECK(reinterpret_cast<std::uintptr_t>(view->data) % 256 == 0);
    if (last != nullptr)
      CHECK(end(*last) <= static_cast<std::byte*>(view->data));
    last = view;
  }
  CHECK(end(w.indices) <= static_cast<std::byte*>(calls.call.workspace) + w.bytes);
  CHECK(w.strip_bytes == 0);
  calls.call.workspace = nullptr;
  CHECK(runtime.workspace_of(calls.call).bytes == w.bytes);
}

TEST_CASE("bad calls are refused before anything is launched or written") {
  const std::initializer_list<Bad> cases = {
      {"topk is 0", [](VideoCalls& c) { c.call.topk = 0; }},
      {"topk is 7", [](VideoCalls& c) { c.call.topk = 7; }},
      {"topk is -1", [](VideoCalls& c) { c.call.topk = -1; }},
      {"q has 288 tokens",
       [](VideoCalls& c) {
         c.call.canvas = {4, 8, 8};
       }},
      {"k has 288 tokens",
       [](VideoCalls& c) {
         c.call.key_canvas = Canvas{4, 8, 8};
       }},
      {"the workspace is 100 bytes", [](VideoCalls& c) { c.call.workspace_bytes = 100; }},
      {"the workspace is", [](VideoCalls& c) { c.call.workspace = nullptr; }},
      {"the workspace is", [](VideoCalls& c) { c.call.workspace = static_cast<std::byte*>(c.call.workspace) + 16; }},
      {"gate has extent 287", [](VideoCalls& c) { c.call.gate->extents[1] = 287; }},
      {"gate has dtype fp16", [](VideoCalls& c) { c.call.gate->dtype = DataType::fp16; }},
      {"fine has stride 0", [](VideoCalls& c) { c.call.fine->strides[1] = 0; }},
      {"fine is a null pointer", [](VideoCalls& c) { c.call.fine->data = nullptr; }},
      {"lse's tokens", [](VideoCalls& c) { c.call.lse->extents[2] = 287; }},
      {"v's tokens", [](VideoCalls& c) { c.call.v.extents[1] = 287; }},
      {"query_sizes is given in the raster layout", [](VideoCalls& c) { c.call.query_sizes = c.sizes.view(); }},
      {"scale is", [](VideoCalls& c) { c.call.scale = -1.0f; }},
      {"tile",
       [](VideoCalls& c) {
         c.call.tile = {3, 3, 3};
       }},
      {"4 dimensions", [](VideoCalls& c) { c.call.q.rank = 3; }},
  };
  for (const Bad& bad : cases) {
    INFO(std::string(bad.problem));
    VideoCalls calls;
    bad.spoil(calls);
    const auto executor = std::make_shared<FakeExecutor>();
    Runtime runtime(executor);
    std::string said;
    try {
      runtime.video_sparse_attention(calls.call);
    } catch (const Error& error) {
      said = std::string(error.what());
      CHECK((error.code() == ErrorCode::invalid_argument || error.code() == ErrorCode::unsupported));
      CHECK(!error.remedy().empty());
    }
    INFO(said);
    CHECK(said.find(bad.problem) != std::string::npos);
    CHECK(executor->launches.empty());
    CHECK(calls.untouched());
  }
}

TEST_CASE("attention is blended with lists only, and with both or neither of gate and coarse") {
  VideoCalls calls;
  HostTensor coarse(DataType::float32, {2, 4, 6, 64}), counts(DataType::int32, {1, 1, 6}),
      indices(DataType::int32, {1, 1, 6, 2});
  AttentionForward call{.q = calls.call.q, .k = calls.call.k, .v = calls.call.v, .out = calls.call.out};
  const BlockList lists{.canvas = {4, 8, 9}, .counts = counts.view(), .indices = indices.view()};
  const auto refusal = [](const AttentionForward& attention, const Pattern& pattern) {
    try {
      static_cast<void>(Runtime::problem_of(attention, pattern));
    } catch (const Error& error) {
      return std::string(error.problem());
    }
    return std::string();
  };
  CHECK(refusal(call, lists).empty());
  call.gate = calls.gate.view();
  CHECK(refusal(call, lists) == "gate is given without coarse");
  call.coarse = coarse.view();
  CHECK(refusal(call, lists).empty());
  CHECK(refusal(call, SlidingTile{.canvas = {4, 8, 9}, .tile = {4, 4, 4}, .windows = {{1, 1, 1}}}) ==
        "coarse is given with a pattern that is no BlockList");
  CHECK(to_string(Runtime::problem_of(call, lists)).find("blend=gated") != std::string::npos);
  call.gate.reset();
  CHECK(to_string(Runtime::problem_of(call, lists)).find("blend=coarse") != std::string::npos);
  call.coarse->extents[2] = 5;
  CHECK(refusal(call, lists) == "coarse has extent 5 in dimension 2");
}

TEST_CASE("parts refuse what does not fit") {
  VideoCalls calls;
  const auto executor = std::make_shared<FakeExecutor>();
  Runtime runtime(executor);
  HostTensor means(DataType::bf16, {2, 4, 6, 64}), key_means(DataType::bf16, {2, 2, 6, 64}),
      counts(DataType::int32, {2, 4, 6}), indices(DataType::int32, {2, 4, 6, 2}),
      key_counts(DataType::int32, {2, 4, 6}), offsets(DataType::int32, {2, 4, 7}), entries(DataType::int32, {2, 4, 12}),
      mask(DataType::int32, {2, 4, 6, 6});
  PoolTiles pool{calls.call.q, means.view(), Layout::raster, {4, 8, 9}};
  runtime.pool_tiles(pool);
  pool.means.extents[2] = 5;
  CHECK_THROWS_WITH_AS(runtime.pool_tiles(pool), doctest::Contains("means has extent 5"), Error);
  SelectTiles select;
  select.query_means = means.view();
  select.key_means = key_means.view();
  select.counts = counts.view();
  select.indices = indices.view();
  runtime.select_tiles(select);
  select.coarse_output = means.view();
  CHECK_THROWS_WITH_AS(runtime.select_tiles(select), doctest::Contains("coarse_output is given without"), Error);
  select.coarse_output.reset();
  select.indices.extents[3] = 0;
  CHECK_THROWS_WITH_AS(runtime.select_tiles(select), doctest::Contains("is 0"), Error);
  TransposeLists transpose{counts.view(), indices.view(), key_counts.view(), offsets.view(), entries.view()};
  runtime.transpose_lists(transpose);
  transpose.query_indices.extents[2] = 11;
  transpose.query_indices.strides = {44, 11, 1, 0, 0};
  CHECK_THROWS_WITH_AS(runtime.transpose_lists(transpose), doctest::Contains("room for 11"), Error);
  CHECK_THROWS_WITH_AS(runtime.list_mask({mask.view(), counts.view(), indices.view()}),
                       doctest::Contains("mask has dtype int32"), Error);
  CHECK(executor->launches.size() == 4); // transpose_lists runs twice; nothing for what was refused
}

TEST_CASE("a sparsity becomes a topk by either convention") {
  CHECK(topk_of_tiles(0.9, 768) == 77); // ceil(76.8)
  CHECK(topk_of_tiles(0, 768) == 768);
  CHECK(topk_of_tiles(1, 768) == 1);
  CHECK(topk_of_tiles(0.5, 3) == 2);
  CHECK(topk_of_tokens(0.9, 49152) == 77);
  CHECK(topk_of_tokens(0.5, 288) == 3); // ceil(2.25): of 288 tokens that take 6 clipped tiles
  CHECK(topk_of_tokens(1, 288) == 0);   // an error later: this convention has no least value
  CHECK_THROWS_AS(topk_of_tiles(1.5, 10), Error);
  CHECK_THROWS_AS(topk_of_tiles(std::numeric_limits<double>::quiet_NaN(), 10), Error);
  CHECK_THROWS_AS(topk_of_tokens(0.5, 0), Error);
}

TEST_CASE("the parts' problems, and what is wrong with their calls, without a runtime") {
  HostTensor tokens(DataType::bf16, {2, 288, 4, 64}), means(DataType::bf16, {2, 4, 6, 64}),
      counts(DataType::int32, {2, 4, 6}), indices(DataType::int32, {2, 4, 6, 2}),
      mask_counts(DataType::int32, {1, 1, 2}), mask_indices(DataType::int32, {1, 1, 2, 3});
  PoolTiles pool{.tokens = tokens.view(), .means = means.view(), .canvas = {4, 8, 9}};
  CHECK(to_string(Runtime::problem_of(pool)) ==
        "pool_tiles:tile=4x4x4,edges=clipped,dtype=bf16,head_dim=64,layout=raster");
  pool.canvas = {4, 8, 8};
  CHECK_THROWS_AS(static_cast<void>(Runtime::problem_of(pool)), Error);
  SelectTiles select;
  select.query_means = select.key_means = means.view();
  select.counts = counts.view();
  select.indices = indices.view();
  CHECK(to_string(Runtime::problem_of(select)) == "select_tiles:dtype=bf16,head_dim=64");
  select.indices.extents[3] = 7;
  CHECK_THROWS_AS(static_cast<void>(Runtime::problem_of(select)), Error);
  std::uint8_t memory[6] = {};
  ListMask mask{TensorView::contiguous(memory, DataType::boolean, {1, 1, 2, 3}), mask_counts.view(),
                mask_indices.view()};
  CHECK(to_string(Runtime::problem_of(mask)) == "list_mask:");
  mask.mask.dtype = DataType::int32;
  CHECK_THROWS_AS(static_cast<void>(Runtime::problem_of(mask)), Error);
}
