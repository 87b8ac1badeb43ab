#include <tilewright/video_sparse.hpp>

#include <algorithm>
#include <cmath>

#include <fmt/format.h>

#include "operators/call_shape.hpp"
#include "operators/launch.hpp"
#include "operators/runtime_state.hpp"
#include "operators/tile_calls.hpp"
#include "operators/video_sparse.hpp"
#include "problem/relation.hpp"
#include <tilewright/error.hpp>

namespace tilewright {
namespace {

using operators::FineCall;
using operators::key_canvas_of;
using operators::lay_out;
using operators::refuse;
using operators::workspace_alignment;

void check_sparsity(double sparsity, std::int64_t count, const char* of_what) {
  if (!(sparsity >= 0 && sparsity <= 1))
    refuse(fmt::format("the sparsity is {}", sparsity), "0 (nothing is left out) to 1", "pass the share left out");
  if (count < 1)
    refuse(fmt::format("{} {} are given", count, of_what), "1 and more", "pass the keys' number");
}

operators::SelectShape select_shape(const VideoSparseWorkspace& workspace) {
  const auto &q = workspace.pooled_query.extents, &k = workspace.pooled_key.extents;
  return {q[0], q[1], k[1], q[2], k[2], q[3], workspace.indices.extents[3], workspace.pooled_query.dtype};
}

std::vector<PoolTiles> pool_calls(const VideoSparseAttention& call, const VideoSparseWorkspace& workspace) {
  const auto pool = [&](const TensorView& tokens, const TensorView& means, const Canvas& canvas,
                        const std::optional<TensorView>& sizes) {
    return PoolTiles{tokens, means, call.layout, canvas, call.tile, sizes};
  };
  return {pool(call.q, workspace.pooled_query, call.canvas, call.query_sizes),
          pool(call.k, workspace.pooled_key, key_canvas_of(call), call.key_sizes),
          pool(call.v, workspace.pooled_value, key_canvas_of(call), call.key_sizes)};
}

} // namespace

std::int64_t topk_of_tiles(double sparsity, std::int64_t key_tiles) {
  check_sparsity(sparsity, key_tiles, "key tiles");
  const auto kept = static_cast<std::int64_t>(std::ceil((1 - sparsity) * static_cast<double>(key_tiles)));
  return std::clamp<std::int64_t>(kept, 1, key_tiles);
}

std::int64_t topk_of_tokens(double sparsity, std::int64_t key_tokens) {
  check_sparsity(sparsity, key_tokens, "key tokens");
  constexpr double tile_tokens = 64;
  return static_cast<std::int64_t>(std::ceil((1 - sparsity) * static_cast<double>(key_tokens) / tile_tokens));
}

Problem Runtime::problem_of(const VideoSparseAttention& call) {
  const FineCall fine = operators::placed_fine_call(call);
  Problem problem =
      operators::problem_of_checked(fine.call, fine.pattern, operators::check_call(fine.call, fine.pattern));
  problem.op = Operator::video_sparse_attention;
  validate(problem);
  return problem;
}

VideoSparseWorkspace Runtime::workspace_of(const VideoSparseAttention& call) const {
  VideoSparseWorkspace workspace = lay_out(call);
  const operators::SelectShape shape = select_shape(workspace);
  const Spec spec = spec_of(operators::select_problem(shape.dtype, shape.head_dim));
  workspace.strip_bytes = operators::select_workspace(state_->executor->device(), spec, shape);
  workspace.strips = reinterpret_cast<void*>(reinterpret_cast<std::uintptr_t>(call.workspace) + workspace.bytes);
  workspace.bytes += workspace.strip_bytes;
  return workspace;
}

void Runtime::video_sparse_attention(const VideoSparseAttention& call, Stream stream) {
  run_video_sparse(call, true, stream);
}

void Runtime::video_sparse_selection(const VideoSparseAttention& call, Stream stream) {
  run_video_sparse(call, false, stream);
}

void Runtime::run_video_sparse(const VideoSparseAttention& call, bool attend, Stream stream) {
  const FineCall checked = operators::placed_fine_call(call);
  const operators::CallShape shape = operators::check_call(checked.call, checked.pattern);
  const VideoSparseWorkspace workspace = workspace_of(call);
  if (call.workspace == nullptr || call.workspace_bytes < workspace.bytes ||
      reinterpret_cast<std::uintptr_t>(call.workspace) % workspace_alignment != 0)
    refuse(fmt::format("the workspace is {} bytes at {}", call.workspace_bytes, fmt::ptr(call.workspace)),
           fmt::format("{} bytes and more, at a multiple of {}", workspace.bytes, workspace_alignment),
           "ask Runtime::workspace_of and allocate as much");
  operators::check_pointers(*state_->executor, call);
  // Everything is compiled, or refused, before the first kernel writes anything.
  const FineCall fine = operators::fine_call(call, workspace);
  const Pattern pattern = fine.pattern;
  const std::vector<PoolTiles> pools = pool_calls(call, workspace);
  Problem pool_problem = operators::pool_problem(pools.front());
  const Problem fine_problem = operators::problem_of_checked(fine.call, pattern, shape);
  pool_problem.edges = fine_problem.edges; // of the queries and keys together
  const SelectTiles select = operators::select_call(call, workspace);
  const operators::SelectShape selected = select_shape(workspace);
  const auto pool = state_->prepared(pool_problem, stream);
  const auto chosen = state_->prepared(operators::select_problem(selected.dtype, selected.head_dim), stream);
  const auto attention = attend ? state_->prepared(fine_problem, stream) : operators::Prepared{};
  Executor& executor = *state_->executor;
  operators::launch_pool(executor, *pool.kernel, pool.spec, pools, stream);
  operators::launch_select(executor, *chosen.kernel, chosen.spec, select, selected, stream);
  if (attend)
    operators::launch_attention(executor, *attention.kernel, {fine.call, pattern, shape, attention.spec}, stream);
}

void Runtime::pool_tiles(const PoolTiles& call, Stream stream) {
  operators::check_pool(call);
  const Executor& executor = *state_->executor;
  executor.check_pointer(call.tokens.data, "tokens");
  executor.check_pointer(call.means.data, "means");
  if (call.sizes)
    executor.check_pointer(call.sizes->data, "sizes");
  const auto prepared = state_->prepared(operators::pool_problem(call), stream);
  operators::launch_pool(*state_->executor, *prepared.kernel, prepared.spec, {call}, stream);
}

std::size_t Runtime::workspace_bytes(const SelectTiles& call) const {
  const operators::SelectShape shape = operators::check_select(call);
  const Spec spec = spec_of(operators::select_problem(shape.dtype, shape.head_dim));
  return operators::select_workspace(state_->executor->device(), spec, shape);
}

void Runtime::select_tiles(const SelectTiles& call, Stream stream) {
  const operators::SelectShape shape = operators::check_select(call);
  const Executor& executor = *state_->executor;
  executor.check_pointer(call.query_means.data, "query_means");
  executor.check_pointer(call.key_means.data, "key_means");
  executor.check_pointer(call.counts.data, "counts");
  executor.check_pointer(call.indices.data, "indices");
  const auto check_optional = [&](const std::optional<TensorView>& view, const char* name) {
    if (view)
      executor.check_pointer(view->data, name);
  };
  check_optional(call.value_means, "value_means");
  check_optional(call.coarse_output, "coarse_output");
  check_optional(call.coarse_lse, "coarse_lse");
  check_optional(call.key_sizes, "key_sizes");
  const auto prepared = state_->prepared(operators::select_problem(shape.dtype, shape.head_dim), stream);
  operators::launch_select(*state_->executor, *prepared.kernel, prepared.spec, call, shape, stream);
}

void Runtime::transpose_lists(const TransposeLists& call, Stream stream) {
  operators::check_transpose(call);
  const Executor& executor = *state_->executor;
  executor.check_pointer(call.counts.data, "counts");
  executor.check_pointer(call.indices.data, "indices");
  executor.check_pointer(call.key_counts.data, "key_counts");
  executor.check_pointer(call.offsets.data, "offsets");
  executor.check_pointer(call.query_indices.data, "query_indices");
  const auto prepared = state_->prepared(parse_problem("transpose_lists:"), stream);
  operators::launch_transpose(*state_->executor, *prepared.kernel, prepared.spec, call, stream);
}

void Runtime::list_mask(const ListMask& call, Stream stream) {
  operators::check_mask(call);
  const Executor& executor = *state_->executor;
  executor.check_pointer(call.mask.data, "mask");
  executor.check_pointer(call.counts.data, "counts");
  executor.check_pointer(call.indices.data, "indices");
  const auto prepared = state_->prepared(parse_problem("list_mask:"), stream);
  operators::launch_mask(*state_->executor, *prepared.kernel, prepared.spec, call, stream);
}

} // namespace tilewright
