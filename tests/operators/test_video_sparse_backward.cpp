// The gradient of video sparse attention without a device: what is launched, and what is refused before that.
#include <doctest/doctest.h>

#include <functional>
#include <memory>
#include <string>

#include "fake_executor.hpp"
#include "kernels/attention_backward_parameters.cuh"
#include "kernels/tile_parameters.cuh"
#include "support_tensor.hpp"
#include <tilewright/runtime.hpp>

using namespace tilewright;
using namespace tilewright::testing;

namespace {

/// 2 batches, 4 heads over 2, a canvas of 4x8x9 (6 tiles of 64), gate; topk 2.
struct GradientCalls {
  static constexpr std::int64_t batch = 2, heads = 4, kv_heads = 2, tokens = 288, tiles = 6;

  HostTensor q{DataType::bf16, {batch, tokens, heads, 64}}, k{DataType::bf16, {batch, tokens, kv_heads, 64}},
      v{DataType::bf16, {batch, tokens, kv_heads, 64}}, gate{DataType::bf16, {batch, tokens, heads, 64}},
      fine{DataType::bf16, {batch, tokens, heads, 64}}, lse{DataType::float32, {batch, heads, tokens}},
      dout{DataType::bf16, {batch, tokens, heads, 64}}, dq{DataType::bf16, {batch, tokens, heads, 64}},
      dk{DataType::bf16, {batch, tokens, kv_heads, 64}}, dv{DataType::bf16, {batch, tokens, kv_heads, 64}},
      dgate{DataType::bf16, {batch, tokens, heads, 64}}, kept{DataType::float32, {1 << 16}},
      memory{DataType::float32, {1 << 16}};
  VideoSparseAttentionBackward call{};

  GradientCalls() {
    VideoSparseAttention& forward = call.forward;
    forward.q = q.view();
    forward.k = k.view();
    forward.v = v.view();
    forward.gate = gate.view();
    forward.lse = lse.view();
    forward.fine = fine.view(); // and no out: it is not looked at
    forward.canvas = {4, 8, 9};
    forward.topk = 2;
    forward.workspace = aligned(kept);
    forward.workspace_bytes = (1 << 18) - 256;
    call.dout = dout.view();
    call.dq = dq.view();
    call.dk = dk.view();
    call.dv = dv.view();
    call.dgate = dgate.view();
    call.workspace = aligned(memory);
    call.workspace_bytes = (1 << 18) - 256;
  }
  static void* aligned(const HostTensor& tensor) {
    const auto address = reinterpret_cast<std::uintptr_t>(tensor.view().data);
    return reinterpret_cast<void*>((address + 255) / 256 * 256);
  }
  [[nodiscard]] bool untouched() {
    return dq.unwritten() == batch * tokens * heads * 64 && dgate.unwritten() == batch * tokens * heads * 64 &&
           dk.unwritten() == batch * tokens * kv_heads * 64 && dv.unwritten() == batch * tokens * kv_heads * 64 &&
           memory.unwritten() == 1 << 16;
  }
};

struct Bad {
  const char* problem; // a part of what the error's first part has to say
  std::function<void(GradientCalls&)> spoil;
};

} // namespace

TEST_CASE("the gradient of video sparse attention is three launches, then the fine branch's") {
  GradientCalls calls;
  const auto executor = std::make_shared<FakeExecutor>();
  Runtime runtime(executor);
  const Problem problem = Runtime::problem_of(calls.call);
  CHECK(to_string(problem) ==
        "video_sparse_attention:tile=4x4x4,edges=clipped,blend=gated,dtype=bf16,head_dim=64,layout=raster");
  runtime.prepare_backward(problem);
  CHECK(executor->asked.size() == 7); // the three, transpose_lists, delta, dk and dv, dq
  runtime.video_sparse_attention_backward(calls.call);
  CHECK(executor->asked.size() == 7);      // all were prepared
  REQUIRE(executor->launches.size() == 8); // transpose_lists runs twice
  const auto delta = executor->launches[5].as<AttentionBackwardArguments<BlockListParameters>>();
  CHECK(delta.call.attention.output == calls.fine.view().data); // not the blended output
  const auto blend = executor->launches[0].as<BlendBackwardArguments>();
  CHECK(blend.rows == GradientCalls::batch * GradientCalls::heads * GradientCalls::tiles);
  CHECK(blend.gate_gradient == calls.dgate.view().data);
  CHECK(blend.factor == 1.0f / 8); // a tile has 64 tokens
  const auto query = executor->launches[1].as<CoarseBackwardArguments>();
  const VideoSparseWorkspace forward = runtime.workspace_of(calls.call.forward);
  CHECK(query.query_means == forward.pooled_query.data);
  CHECK(query.value_means == forward.pooled_value.data);
  CHECK(query.heads_per_kv_head == 2);
  CHECK(query.value_factor == 8);
  CHECK(query.score_factor == 1);                 // 8 / sqrt(head_dim)
  CHECK(executor->launches[1].shape.grid.x == 8); // one block of query tiles for each batch and head
  CHECK(executor->launches[2].shape.grid.x == 4); // and of key tiles for each batch and key/value head
  CHECK(query.query_counts.tile_t == 4);
  CHECK(query.key_counts.grid.w == 9);
  const auto key_step = executor->launches[6].as<AttentionBackwardArguments<BlockListParameters>>();
  CHECK(key_step.backward.shares.key == query.key_shares);
  CHECK(key_step.backward.shares.value == query.value_shares);
  const auto query_step = executor->launches[7].as<AttentionBackwardArguments<BlockListParameters>>();
  CHECK(query_step.backward.shares.query == query.query_shares);
}

TEST_CASE("a gradient's workspace depends on extents alone and is used to the end") {
  GradientCalls calls;
  const std::size_t bytes = Runtime::workspace_bytes(calls.call);
  CHECK(bytes % 256 == 0);
  calls.call.workspace = calls.call.forward.workspace = nullptr;
  CHECK(Runtime::workspace_bytes(calls.call) == bytes);
  calls = GradientCalls{};
  const auto executor = std::make_shared<FakeExecutor>();
  Runtime runtime(executor);
  calls.call.workspace_bytes = bytes;
  runtime.video_sparse_attention_backward(calls.call);
  const auto key = executor->launches[2].as<CoarseBackwardArguments>();
  const auto* end = reinterpret_cast<const std::byte*>(
      key.value_shares + GradientCalls::batch * GradientCalls::kv_heads * GradientCalls::tiles * 64);
  CHECK(end <= static_cast<std::byte*>(calls.call.workspace) + bytes);
  calls.call.workspace_bytes = bytes - 1;
  CHECK_THROWS_WITH_AS(runtime.video_sparse_attention_backward(calls.call), doctest::Contains("the workspace is"),
                       Error);
  // The strips of the forward call's workspace are not needed.
  calls.call.workspace_bytes = bytes;
  const VideoSparseWorkspace kept = runtime.workspace_of(calls.call.forward);
  calls.call.forward.workspace_bytes = kept.bytes - kept.strip_bytes;
  runtime.video_sparse_attention_backward(calls.call);
}

TEST_CASE("bad gradient calls are refused before anything is launched or written") {
  const std::initializer_list<Bad> cases = {
      {"the forward call has no fine", [](GradientCalls& c) { c.call.forward.fine.reset(); }},
      {"the forward call has no lse", [](GradientCalls& c) { c.call.forward.lse.reset(); }},
      {"fine has extent 287", [](GradientCalls& c) { c.call.forward.fine->extents[1] = 287; }},
      {"fine is a null pointer", [](GradientCalls& c) { c.call.forward.fine->data = nullptr; }},
      {"lse's tokens", [](GradientCalls& c) { c.call.forward.lse->extents[2] = 287; }},
      {"gate has extent 287", [](GradientCalls& c) { c.call.forward.gate->extents[1] = 287; }},
      {"dout has extent 287", [](GradientCalls& c) { c.call.dout.extents[1] = 287; }},
      {"dout has dtype fp16", [](GradientCalls& c) { c.call.dout.dtype = DataType::fp16; }},
      {"dq has stride 0", [](GradientCalls& c) { c.call.dq.strides[1] = 0; }},
      {"dk is a null pointer", [](GradientCalls& c) { c.call.dk.data = nullptr; }},
      {"dv has extent 4", [](GradientCalls& c) { c.call.dv = c.call.dq; }},
      {"dgate has extent 2", [](GradientCalls& c) { c.call.dgate = c.call.dk; }},
      {"dgate has stride 0", [](GradientCalls& c) { c.call.dgate->strides[2] = 0; }},
      {"dgate is given and the forward call has no gate", [](GradientCalls& c) { c.call.forward.gate.reset(); }},
      {"topk is 7", [](GradientCalls& c) { c.call.forward.topk = 7; }},
      {"tokens",
       [](GradientCalls& c) {
         c.call.forward.canvas = {4, 8, 8};
       }},
      {"scale is", [](GradientCalls& c) { c.call.forward.scale = -1.0f; }},
      {"the forward call's workspace is 100 bytes", [](GradientCalls& c) { c.call.forward.workspace_bytes = 100; }},
      {"the forward call's workspace is", [](GradientCalls& c) { c.call.forward.workspace = nullptr; }},
      {"the workspace is 100 bytes", [](GradientCalls& c) { c.call.workspace_bytes = 100; }},
      {"the workspace is", [](GradientCalls& c) { c.call.workspace = nullptr; }},
      {"the workspace is",
       [](GradientCalls& c) { c.call.workspace = static_cast<std::byte*>(c.call.workspace) + 128; }},
  };
  for (const Bad& bad : cases) {
    INFO(std::string(bad.problem));
    GradientCalls calls;
    bad.spoil(calls);
    const auto executor = std::make_shared<FakeExecutor>();
    Runtime runtime(executor);
    std::string said;
    try {
      runtime.video_sparse_attention_backward(calls.call);
    } catch (const Error& error) {
      said = std::string(error.what());
      CHECK((error.code() == ErrorCode::invalid_argument || error.code() == ErrorCode::unsupported));
      CHECK(!error.allowed().empty());
      CHECK(!error.remedy().empty());
    }
    INFO(said);
    CHECK(said.find(bad.problem) != std::string::npos);
    CHECK(executor->launches.empty());
    CHECK(calls.untouched());
  }
}

TEST_CASE("a gradient call refuses memory that the device cannot read") {
  GradientCalls calls;
  for (const void* foreign : {calls.call.dout.data, calls.call.dgate->data, calls.call.forward.workspace,
                              calls.call.workspace, calls.call.forward.fine->data}) {
    const auto executor = std::make_shared<FakeExecutor>();
    executor->foreign = {foreign};
    Runtime runtime(executor);
    CHECK_THROWS_WITH_AS(runtime.video_sparse_attention_backward(calls.call), doctest::Contains("foreign memory"),
                         Error);
    CHECK(executor->launches.empty());
  }
}
