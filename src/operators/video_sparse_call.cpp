#include "operators/video_sparse.hpp"

#include <algorithm>

#include <fmt/format.h>

#include "operators/call_shape.hpp"
#include "problem/relation.hpp"
#include <tilewright/error.hpp>

namespace tilewright::operators {

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
  fine.pattern.key_canvas = key_canvas_of(call);
  fine.pattern.counts = workspace.counts;
  fine.pattern.indices = workspace.indices;
  fine.pattern.query_sizes = call.query_sizes;
  fine.pattern.key_sizes = call.key_sizes;
  fine.pattern.neighbours_share = call.neighbours_share;
  return fine;
}

VideoSparseWorkspace lay_out(const VideoSparseAttention& call) {
  if (call.q.rank != 4 || call.k.rank != 4)
    refuse(fmt::format("q and k have {} and {} dimensions", call.q.rank, call.k.rank), "4 dimensions", "reshape them");
  const std::size_t head_axis = call.layout == Layout::raster ? 2 : 1;
  const std::int64_t batch = call.q.extents[0], heads = call.q.extents[head_axis], head_dim = call.q.extents[3];
  const std::int64_t kv_heads = call.k.extents[head_axis];
  const std::int64_t query_tiles = problem::Tiling(call.canvas, call.tile).tile_count();
  const std::int64_t key_tiles = problem::Tiling(key_canvas_of(call), call.tile).tile_count();
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

FineCall placed_fine_call(const VideoSparseAttention& call) {
  VideoSparseAttention placed = call;
  if (placed.workspace == nullptr)
    placed.workspace = reinterpret_cast<void*>(workspace_alignment);
  return fine_call(placed, lay_out(placed));
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

} // namespace tilewright::operators
