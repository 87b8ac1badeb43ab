#include <tilewright/runtime.hpp>

#include <fmt/format.h>

#include "operators/backward.hpp"
#include "operators/call_shape.hpp"
#include "operators/runtime_state.hpp"
#include "operators/tile_backward_calls.hpp"
#include "operators/video_sparse.hpp"
#include <tilewright/error.hpp>

namespace tilewright {
namespace {

using operators::refuse;
using operators::VideoSparseBackwardWorkspace;
using operators::workspace_alignment;

/// The forward call as far as its gradient looks at it. Throws where a result of it is missing.
VideoSparseAttention checked_forward(const VideoSparseAttentionBackward& call) {
  const auto require = [](const std::optional<TensorView>& view, const char* name) {
    if (!view)
      refuse(fmt::format("the forward call has no {}", name), "what the forward pass wrote there",
             fmt::format("give {} to the forward pass, and keep it for this call", name));
  };
  require(call.forward.fine, "fine");
  require(call.forward.lse, "lse");
  const VideoSparseAttention& forward = call.forward;
  operators::check_like(*forward.fine, "fine", forward.q, "q", forward.layout, false);
  VideoSparseAttention looked_at = forward;
  looked_at.out = *forward.fine;
  return looked_at;
}

/// The fine branch's gradient, but for its workspace.
AttentionBackward fine_backward(const VideoSparseAttentionBackward& call) {
  const VideoSparseAttention& forward = call.forward;
  return {.q = forward.q,
          .k = forward.k,
          .v = forward.v,
          .out = *forward.fine,
          .dout = call.dout,
          .lse = *forward.lse,
          .dq = call.dq,
          .dk = call.dk,
          .dv = call.dv,
          .layout = forward.layout,
          .scale = forward.scale};
}

/// Checks the call as a whole, but for its workspaces, and gives the fine branch's pattern.
BlockList check_whole(const VideoSparseAttentionBackward& call) {
  const VideoSparseAttention forward = checked_forward(call);
  const operators::FineCall fine = operators::placed_fine_call(forward);
  operators::check_call(fine.call, fine.pattern);
  operators::check_backward(fine_backward(call), fine.pattern);
  if (call.dgate && !forward.gate)
    refuse("dgate is given and the forward call has no gate", "both, or dgate left out", "leave dgate out");
  if (call.dgate)
    operators::check_like(*call.dgate, "dgate", *forward.gate, "gate", forward.layout, true);
  return fine.pattern;
}

VideoSparseBackwardWorkspace lay_out(const VideoSparseAttentionBackward& call, const BlockList& pattern) {
  VideoSparseBackwardWorkspace workspace;
  const auto place = [&](std::size_t bytes) {
    void* const data = reinterpret_cast<void*>(reinterpret_cast<std::uintptr_t>(call.workspace) + workspace.bytes);
    workspace.bytes += (bytes + workspace_alignment - 1) / workspace_alignment * workspace_alignment;
    return data;
  };
  const auto place_tensor = [&](DataType dtype, std::int64_t rows, std::int64_t columns) {
    return place(static_cast<std::size_t>(rows * columns) * size_of(dtype));
  };
  workspace.fine_bytes = Runtime::workspace_bytes(fine_backward(call), pattern);
  workspace.fine = place(workspace.fine_bytes);
  // As large as the means, which the forward pass had room for.
  const VideoSparseWorkspace forward = operators::lay_out(call.forward);
  const auto &q = forward.pooled_query.extents, &k = forward.pooled_key.extents;
  const auto of_queries = [&](DataType dtype) {
    return TensorView::contiguous(place_tensor(dtype, q[0] * q[1] * q[2], q[3]), dtype, {q[0], q[1], q[2], q[3]});
  };
  const auto of_keys = [&] {
    return TensorView::contiguous(place_tensor(DataType::float32, k[0] * k[1] * k[2], k[3]), DataType::float32,
                                  {k[0], k[1], k[2], k[3]});
  };
  const auto of_rows = [&] {
    const std::int64_t rows = operators::statistics_rows(q[2]);
    return TensorView::contiguous(place_tensor(DataType::float32, q[0] * q[1], rows), DataType::float32,
                                  {q[0], q[1], rows});
  };
  workspace.coarse_gradient = of_queries(call.forward.q.dtype);
  workspace.exponents = of_rows();
  workspace.deltas = of_rows();
  workspace.query_shares = of_queries(DataType::float32);
  workspace.key_shares = of_keys();
  workspace.value_shares = of_keys();
  return workspace;
}

void check_workspace(const char* name, const void* data, std::size_t bytes, std::size_t needed, const char* remedy) {
  if (data == nullptr || bytes < needed || reinterpret_cast<std::uintptr_t>(data) % workspace_alignment != 0)
    refuse(fmt::format("{} is {} bytes at {}", name, bytes, fmt::ptr(data)),
           fmt::format("{} bytes and more, at a multiple of {}", needed, workspace_alignment), remedy);
}

} // namespace

Problem Runtime::problem_of(const VideoSparseAttentionBackward& call) {
  check_whole(call);
  return problem_of(checked_forward(call));
}

std::size_t Runtime::workspace_bytes(const VideoSparseAttentionBackward& call) {
  return lay_out(call, check_whole(call)).bytes;
}

void Runtime::video_sparse_attention_backward(const VideoSparseAttentionBackward& call, Stream stream) {
  check_whole(call);
  const VideoSparseAttention forward = checked_forward(call);
  const VideoSparseWorkspace kept = operators::lay_out(forward);
  check_workspace("the forward call's workspace", forward.workspace, forward.workspace_bytes, kept.bytes,
                  "pass the forward call as it was, with its workspace as it left it");
  const BlockList pattern = operators::fine_call(forward, kept).pattern;
  const VideoSparseBackwardWorkspace workspace = lay_out(call, pattern);
  check_workspace("the workspace", call.workspace, call.workspace_bytes, workspace.bytes,
                  "ask Runtime::workspace_bytes and allocate as much");
  Executor& executor = *state_->executor;
  operators::check_pointers(executor, forward);
  executor.check_pointer(call.workspace, "workspace");
  if (call.dgate)
    executor.check_pointer(call.dgate->data, "dgate");
  // Everything is compiled, or refused, before the first kernel writes anything.
  const auto prepare = [&](const Problem& problem) { return state_->prepared(problem, stream); };
  AttentionBackward fine = fine_backward(call);
  fine.workspace = workspace.fine;
  fine.workspace_bytes = workspace.fine_bytes;
  const Pattern lists = pattern;
  const operators::BackwardPlan plan = operators::plan_backward(executor, fine, lists, prepare, stream);
  std::vector<operators::Prepared> coarse;
  for (const Problem& step : backward_steps(problem_of(forward)))
    if (!is_backward(step.op))
      coarse.push_back(prepare(step));
  for (const operators::Prepared& step : coarse) {
    if (step.spec.problem.op == Operator::blend_backward)
      operators::launch_blend_backward(executor, step, call, kept, workspace, stream);
    else
      operators::launch_coarse_backward(executor, step, call, kept, workspace, stream);
  }
  const auto floats = [](const TensorView& view) { return static_cast<const float*>(view.data); };
  operators::launch_backward(
      executor, plan, {floats(workspace.query_shares), floats(workspace.key_shares), floats(workspace.value_shares)},
      stream);
}

} // namespace tilewright
