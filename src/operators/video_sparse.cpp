#include <tilewright/video_sparse.hpp>

#include <algorithm>
#include <cmath>

#include <fmt/format.h>

#include "operators/call_shape.hpp"
#include "operators/launch.hpp"
#include "operators/runtime_state.hpp"
#include "operators/tile_calls.hpp"
#include "problem/relation.hpp"
#include <tilewright/error.hpp>

namespace tilewright {
namespace {

constexpr std::size_t workspace_alignment = 256;

[[noreturn]] void refuse(std::string problem, std::string allowed, std::string remedy) {
  throw Error(ErrorCode::invalid_argument, std::move(problem), std::move(allowed), std::move(remedy));
}

void check_sparsity(double sparsity, std::int64_t count, const char* of_what) {
  if (!(sparsity >= 0 && sparsity <= 1))
    refuse(fmt::format("the sparsity is {}", sparsity), "0 (nothing is left out) to 1", "pass the share left out");
  if (count < 1)
    refuse(fmt::format("{} {} are given", count, of_what), "1 and more", "pass the keys' number");
}

Canvas key_canvas(const VideoSparseAttention& call) { return call.key_canvas.value_or(call.canvas); }

/// The fine branch: a block list whose lists stand in the workspace.
struct FineCall {
  AttentionForward call;
  BlockList pattern;
};

FineCall fine_call(const VideoSparseAttention& call, const VideoSparseWorkspace& workspace) {
  FineCall fine{{.q = call.q,
                 .k = call.k,
                 .v = call.v,
                 .out = call.out,
                 .lse = call.lse,
                 .layout = call.layout,
                 .scale = call.scale,
                 .coarse = workspace.coarse_output,
                 .gate = call.gate,
                 .fine = call.fine},
                {.canvas = call.canvas, .tile = call.tile}};
  fine.pattern.key_canvas = key_canvas(call);
  fine.pattern.counts = workspace.counts;
  fine.pattern.indices = workspace.indices;
  fine.pattern.query_sizes = call.query_sizes;
  fine.pattern.key_sizes = call.key_sizes;
  fine.pattern.neighbours_share = call.neighbours_share;
  return fine;
}

/// The workspace without its strips. Places follow each other at multiples of the alignment.
VideoSparseWorkspace lay_out(const VideoSparseAttention& call) {
  if (call.q.rank != 4 || call.k.rank != 4)
    refuse(fmt::format("q and k have {} and {} dimensions", call.q.rank, call.k.rank), "4 dimensions", "reshape them");
  const std::size_t head_axis = call.layout == Layout::raster ? 2 : 1;
  const std::int64_t batch = call.q.extents[0], heads = call.q.extents[head_axis], head_dim = call.q.extents[3];
  const std::int64_t kv_heads = call.k.extents[head_axis];
  const std::int64_t query_tiles = problem::Tiling(call.canvas, call.tile).tile_count();
  const std::int64_t key_tiles = problem::Tiling(key_canvas(call), call.tile).tile_count();
  if (call.topk < 1 || call.topk > key_tiles)
    refuse(fmt::format("topk is {}", call.topk), fmt::format("1 to {}, the number of key tiles", key_tiles),
           "correct topk; topk_of_tiles and topk_of_tokens turn a sparsity into one");
  if (std::min({batch, heads, kv_heads, head_dim}) < 1)
    refuse("q or k has an extent of 0", "extents of 1 and more",
           "leave the call out where there is nothing to compute");
  VideoSparseWorkspace workspace;
  const auto place = [&](DataType dtype, std::initializer_list<std::int64_t> extents) {
    void* const data = reinterpret_cast<void*>(reinterpret_cast<std::uintptr_t>(call.workspace) + workspace.bytes);
    std::size_t bytes = size_of(dtype);
    for (const std::int64_t extent : extents)
      if (__builtin_mul_overflow(bytes, static_cast<std::size_t>(extent), &bytes) || bytes > SIZE_MAX / 16)
        throw Error(ErrorCode::unsupported, "the workspace would exceed every memory", "smaller tensors",
                    "split the batch or the heads");
    workspace.bytes += (bytes + workspace_alignment - 1) / workspace_alignment * workspace_alignment;
    return TensorView::contiguous(data, dtype, extents);
  };
  workspace.pooled_query = place(call.q.dtype, {batch, heads, query_tiles, head_dim});
  workspace.pooled_key = place(call.q.dtype, {batch, kv_heads, key_tiles, head_dim});
  workspace.pooled_value = place(call.q.dtype, {batch, kv_heads, key_tiles, head_dim});
  workspace.coarse_output = place(DataType::float32, {batch, heads, query_tiles, head_dim});
  workspace.coarse_lse = place(DataType::float32, {batch, heads, query_tiles});
  workspace.counts = place(DataType::int32, {batch, heads, query_tiles});
  workspace.indices = place(DataType::int32, {batch, heads, query_tiles, call.topk});
  return workspace;
}

SelectTiles select_call(const VideoSparseAttention& call, const VideoSparseWorkspace& workspace) {
  SelectTiles select;
  select.query_means = workspace.pooled_query;
  select.key_means = workspace.pooled_key;
  select.value_means = workspace.pooled_value;
  select.counts = workspace.counts;
  select.indices = workspace.indices;
  select.coarse_output = workspace.coarse_output;
  select.coarse_lse = workspace.coarse_lse;
  select.key_sizes = call.key_sizes;
  select.scale = call.scale;
  select.workspace = workspace.strips;
  select.workspace_bytes = workspace.strip_bytes;
  return select;
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
          pool(call.k, workspace.pooled_key, key_canvas(call), call.key_sizes),
          pool(call.v, workspace.pooled_value, key_canvas(call), call.key_sizes)};
}

void check_pointers(const Executor& executor, const VideoSparseAttention& call) {
  const auto check = [&](const std::optional<TensorView>& view, const char* name) {
    if (view)
      executor.check_pointer(view->data, name);
  };
  check(call.q, "q");
  check(call.k, "k");
  check(call.v, "v");
  check(call.out, "out");
  check(call.gate, "gate");
  check(call.lse, "lse");
  check(call.fine, "fine");
  check(call.query_sizes, "query_sizes");
  check(call.key_sizes, "key_sizes");
  executor.check_pointer(call.workspace, "workspace");
}

/// What is not known before there is a workspace is checked as if it stood at this address.
void* const any_address = reinterpret_cast<void*>(workspace_alignment);

/// Checks the call as a whole, but for its workspace.
operators::CallShape check_whole(const VideoSparseAttention& call) {
  VideoSparseAttention placed = call;
  if (placed.workspace == nullptr)
    placed.workspace = any_address;
  const FineCall fine = fine_call(placed, lay_out(placed));
  return operators::check_call(fine.call, fine.pattern);
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
  VideoSparseAttention placed = call;
  if (placed.workspace == nullptr)
    placed.workspace = any_address;
  const FineCall fine = fine_call(placed, lay_out(placed));
  Problem problem = operators::problem_of_checked(fine.call, fine.pattern, check_whole(call));
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
  const operators::CallShape shape = check_whole(call);
  const VideoSparseWorkspace workspace = workspace_of(call);
  if (call.workspace == nullptr || call.workspace_bytes < workspace.bytes ||
      reinterpret_cast<std::uintptr_t>(call.workspace) % workspace_alignment != 0)
    refuse(fmt::format("the workspace is {} bytes at {}", call.workspace_bytes, fmt::ptr(call.workspace)),
           fmt::format("{} bytes and more, at a multiple of {}", workspace.bytes, workspace_alignment),
           "ask Runtime::workspace_of and allocate as much");
  check_pointers(*state_->executor, call);
  // Everything is compiled, or refused, before the first kernel writes anything.
  const FineCall fine = fine_call(call, workspace);
  const Pattern pattern = fine.pattern;
  const std::vector<PoolTiles> pools = pool_calls(call, workspace);
  Problem pool_problem = operators::pool_problem(pools.front());
  const Problem fine_problem = operators::problem_of_checked(fine.call, pattern, shape);
  pool_problem.edges = fine_problem.edges; // of the queries and keys together
  const SelectTiles select = select_call(call, workspace);
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
