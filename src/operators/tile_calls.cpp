#include "operators/tile_calls.hpp"

#include <algorithm>
#include <cmath>
#include <limits>

#include <fmt/format.h>

#include "operators/call_shape.hpp"
#include "operators/launch.hpp"
#include "problem/relation.hpp"
#include "schedule/feasibility.hpp"
#include "schedule/tile_kernels.hpp"
#include <tilewright/error.hpp>
#include <tilewright/runtime.hpp>

namespace tilewright::operators {
namespace {

constexpr std::uintptr_t strips_alignment = 256;

void require_head_dim(std::int64_t head_dim) {
  if (head_dim != 64 && head_dim != 128)
    throw Error(ErrorCode::unsupported, fmt::format("head_dim is {}", head_dim), "64 or 128",
                "pad the tensors with zeros up to 64 or 128 and pass the scale of the true head_dim");
}

void require_rank(const TensorView& view, const char* name, int rank) {
  if (view.rank != rank)
    refuse(fmt::format("{} has {} dimensions", name, view.rank), fmt::format("{} dimensions", rank),
           "reshape it; the header of the operator lists the dimensions");
}

LaunchShape shape_of(const Schedule& schedule, std::int64_t blocks, std::int64_t shared_bytes) {
  LaunchShape shape;
  shape.grid.x = static_cast<std::uint32_t>(counted(blocks, "thread blocks"));
  shape.block.x = schedule.warps * warp_size;
  shape.shared_bytes = static_cast<std::uint32_t>(shared_bytes);
  return shape;
}

std::int64_t tile_count(const PoolTiles& call) { return problem::Tiling(call.canvas, call.tile).tile_count(); }

/// Thread blocks of select_tiles that run at a time, at most; each has a strip of its own.
std::int64_t strip_blocks(const DeviceDescription& device, const Spec& spec, const SelectShape& shape) {
  const std::int64_t strips = shape.batch * shape.heads * ceiling_divide(shape.query_tiles, spec.schedule.block_q);
  return std::min<std::int64_t>(strips, std::int64_t{device.multiprocessors} * spec.schedule.blocks_per_processor);
}

} // namespace

void check_pool(const PoolTiles& call) {
  check_tokens(call.tokens, "tokens", call.layout, call.canvas, call.tile);
  const std::size_t head_axis = call.layout == Layout::raster ? 2 : 1;
  const auto& extents = call.tokens.extents;
  require_head_dim(extents[3]);
  check_dense(call.means, "means", call.tokens.dtype, {extents[0], extents[head_axis], tile_count(call), extents[3]});
  check_tile_sizes(call.sizes, "sizes", extents[0], tile_count(call), call.layout);
}

Problem pool_problem(const PoolTiles& call) {
  Problem problem = parse_problem("pool_tiles:dtype=bf16");
  problem.tile = problem.key_tile = call.tile;
  problem.dtype = call.tokens.dtype;
  problem.head_dim = static_cast<std::int32_t>(call.tokens.extents[3]);
  problem.layout = call.layout;
  problem.edges = call.sizes                                         ? Edges::sized
                  : problem::Tiling(call.canvas, call.tile).ragged() ? Edges::clipped
                                                                     : Edges::full;
  validate(problem);
  return problem;
}

void launch_pool(Executor& executor, const Kernel& kernel, const Spec& spec, const std::vector<PoolTiles>& calls,
                 Stream stream) {
  PoolArguments arguments{};
  std::int64_t means = 0;
  for (std::size_t i = 0; i < calls.size(); ++i) {
    const PoolTiles& call = calls[i];
    PoolSource& source = arguments.sources[i];
    source.tokens = call.tokens.data;
    source.means = call.means.data;
    source.strides = strides_of(call.tokens, call.layout);
    source.grid = grid_of(call.canvas, call.tile);
    source.sizes = size_data(call.sizes);
    source.size_batch_stride = size_stride(call.sizes);
    source.heads = static_cast<std::int32_t>(call.means.extents[1]);
    means += call.means.extents[0] * call.means.extents[1] * call.means.extents[2];
    source.end = counted(means, "means");
  }
  arguments.means = counted(means, "means");
  executor.launch(kernel, shape_of(spec.schedule, ceiling_divide(means, spec.schedule.warps), 0), &arguments,
                  sizeof(arguments), stream);
}

SelectShape check_select(const SelectTiles& call) {
  require_rank(call.query_means, "query_means", 4);
  require_rank(call.key_means, "key_means", 4);
  require_rank(call.indices, "indices", 4);
  const auto &q = call.query_means.extents, &k = call.key_means.extents;
  SelectShape shape{q[0], q[1], k[1], q[2], k[2], q[3], call.indices.extents[3], call.query_means.dtype};
  if (shape.dtype != DataType::bf16 && shape.dtype != DataType::fp16)
    refuse(fmt::format("query_means has dtype {}", to_string(shape.dtype)), "bf16 or fp16", "convert it");
  require_head_dim(shape.head_dim);
  check_dense(call.query_means, "query_means", shape.dtype, {q[0], q[1], q[2], q[3]});
  check_dense(call.key_means, "key_means", shape.dtype, {shape.batch, shape.kv_heads, shape.key_tiles, shape.head_dim});
  if (shape.heads % shape.kv_heads != 0)
    refuse(fmt::format("query_means has {} heads and key_means has {}", shape.heads, shape.kv_heads),
           "a number of key heads that divides the query heads", "repeat the key heads");
  if (call.value_means)
    check_dense(*call.value_means, "value_means", shape.dtype,
                {shape.batch, shape.kv_heads, shape.key_tiles, shape.head_dim});
  if (shape.topk < 1 || shape.topk > shape.key_tiles)
    refuse(fmt::format("topk (the last extent of indices) is {}", shape.topk),
           fmt::format("1 to {}, the number of key tiles", shape.key_tiles), "correct topk");
  check_dense(call.counts, "counts", DataType::int32, {shape.batch, shape.heads, shape.query_tiles});
  check_dense(call.indices, "indices", DataType::int32, {shape.batch, shape.heads, shape.query_tiles, shape.topk});
  if (call.coarse_output) {
    if (!call.value_means)
      refuse("coarse_output is given without value_means", "both, or neither", "give the values' means");
    check_dense(*call.coarse_output, "coarse_output", DataType::float32,
                {shape.batch, shape.heads, shape.query_tiles, shape.head_dim});
  }
  if (call.coarse_lse)
    check_dense(*call.coarse_lse, "coarse_lse", DataType::float32, {shape.batch, shape.heads, shape.query_tiles});
  check_tile_sizes(call.key_sizes, "key_sizes", shape.batch, shape.key_tiles, Layout::tiled);
  if (call.scale && !(std::isfinite(*call.scale) && *call.scale > 0))
    refuse(fmt::format("scale is {}", *call.scale), "a finite number above 0", "negate q instead of the scale");
  for (const TensorView* view : {&call.query_means, &call.key_means, call.value_means ? &*call.value_means : nullptr})
    if (view != nullptr && reinterpret_cast<std::uintptr_t>(view->data) % 16 != 0)
      refuse(fmt::format("a tensor of means starts at {}", fmt::ptr(view->data)), "a multiple of 16 bytes",
             "allocate it aligned");
  return shape;
}

Problem select_problem(DataType dtype, std::int64_t head_dim) {
  Problem problem = parse_problem("select_tiles:dtype=bf16");
  problem.dtype = dtype;
  problem.head_dim = static_cast<std::int32_t>(head_dim);
  validate(problem);
  return problem;
}

std::size_t select_workspace(const DeviceDescription& device, const Spec& spec, const SelectShape& shape) {
  const std::int64_t strip = schedule::tile_kernels::strip_bytes(spec.schedule, shape.key_tiles);
  if (schedule::shared_memory_bytes(spec.problem, spec.schedule) + strip <= device.shared_bytes_per_block)
    return 0;
  return static_cast<std::size_t>(strip_blocks(device, spec, shape) * strip);
}

void launch_select(Executor& executor, const Kernel& kernel, const Spec& spec, const SelectTiles& call,
                   const SelectShape& shape, Stream stream) {
  const std::size_t workspace = select_workspace(executor.device(), spec, shape);
  if (workspace > 0 && (call.workspace == nullptr || call.workspace_bytes < workspace ||
                        reinterpret_cast<std::uintptr_t>(call.workspace) % strips_alignment != 0))
    refuse(fmt::format("the workspace is {} bytes at {}", call.workspace_bytes, fmt::ptr(call.workspace)),
           fmt::format("{} bytes and more, at a multiple of {}", workspace, strips_alignment),
           "ask Runtime::workspace_bytes and allocate as much");
  SelectArguments arguments{};
  arguments.query_means = call.query_means.data;
  arguments.key_means = call.key_means.data;
  arguments.value_means = call.value_means ? call.value_means->data : nullptr;
  arguments.key_sizes = size_data(call.key_sizes);
  arguments.key_size_batch_stride = size_stride(call.key_sizes);
  arguments.counts = static_cast<std::int32_t*>(call.counts.data);
  arguments.indices = static_cast<std::int32_t*>(call.indices.data);
  arguments.coarse_output = call.coarse_output ? static_cast<float*>(call.coarse_output->data) : nullptr;
  arguments.log_sum_exp = call.coarse_lse ? static_cast<float*>(call.coarse_lse->data) : nullptr;
  arguments.strips = workspace > 0 ? static_cast<std::uint32_t*>(call.workspace) : nullptr;
  arguments.heads = static_cast<std::int32_t>(shape.heads);
  arguments.heads_per_kv_head = static_cast<std::int32_t>(shape.heads / shape.kv_heads);
  arguments.query_tiles = counted(shape.query_tiles, "query tiles");
  arguments.key_tiles = counted(shape.key_tiles, "key tiles");
  arguments.topk = static_cast<std::int32_t>(shape.topk);
  arguments.strips_per_head = counted(ceiling_divide(shape.query_tiles, spec.schedule.block_q), "strips");
  arguments.strips_in_all = counted(shape.batch * shape.heads * arguments.strips_per_head, "strips");
  arguments.strip_stride = schedule::tile_kernels::strip_stride(shape.key_tiles);
  arguments.scale_log2 = scale_log2_of(call.scale, shape.head_dim);
  const std::int64_t strip = workspace > 0 ? 0 : schedule::tile_kernels::strip_bytes(spec.schedule, shape.key_tiles);
  // With strips in the workspace no more thread blocks than these have one; otherwise each computes one strip.
  const std::int64_t blocks =
      workspace > 0 ? strip_blocks(executor.device(), spec, shape) : std::int64_t{arguments.strips_in_all};
  executor.launch(kernel,
                  shape_of(spec.schedule, blocks, schedule::shared_memory_bytes(spec.problem, spec.schedule) + strip),
                  &arguments, sizeof(arguments), stream);
}

void check_transpose(const TransposeLists& call) {
  require_rank(call.key_counts, "key_counts", 3);
  require_rank(call.query_indices, "query_indices", 3);
  require_rank(call.counts, "counts", 3);
  require_rank(call.indices, "indices", 4);
  const auto& extents = call.key_counts.extents;
  check_lists_of(call.counts, call.indices, extents[0], extents[1], call.counts.extents[2]);
  check_dense(call.key_counts, "key_counts", DataType::int32, {extents[0], extents[1], extents[2]});
  check_dense(call.offsets, "offsets", DataType::int32, {extents[0], extents[1], extents[2] + 1});
  check_dense(call.query_indices, "query_indices", DataType::int32,
              {extents[0], extents[1], call.query_indices.extents[2]});
  const std::int64_t needed = call.counts.extents[2] * call.indices.extents[3];
  if (call.query_indices.extents[2] < needed)
    refuse(fmt::format("query_indices has room for {} query tiles", call.query_indices.extents[2]),
           fmt::format("{} and more: query tiles * the capacity of indices", needed), "allocate it larger");
  counted(needed, "list entries a head");
}

void launch_transpose(Executor& executor, const Kernel& kernel, const Spec& spec, const TransposeLists& call,
                      Stream stream) {
  TransposeArguments arguments{};
  arguments.lists = list_parameters(call.counts, call.indices);
  arguments.counts = static_cast<std::int32_t*>(call.key_counts.data);
  arguments.offsets = static_cast<std::int32_t*>(call.offsets.data);
  arguments.indices = static_cast<std::int32_t*>(call.query_indices.data);
  arguments.capacity = call.query_indices.extents[2];
  arguments.heads = static_cast<std::int32_t>(call.key_counts.extents[1]);
  arguments.query_tiles = static_cast<std::int32_t>(call.counts.extents[2]);
  arguments.key_tiles = static_cast<std::int32_t>(call.key_counts.extents[2]);
  arguments.blocks_per_head = static_cast<std::int32_t>(ceiling_divide(arguments.key_tiles, spec.schedule.block_k));
  const std::int64_t shared = schedule::tile_kernels::bit_bytes(spec.schedule, arguments.query_tiles);
  if (shared > executor.device().shared_bytes_per_block)
    throw Error(ErrorCode::unsupported, fmt::format("lists of {} query tiles", arguments.query_tiles),
                fmt::format("as many as {} bytes of shared memory hold a bit for, {} times",
                            executor.device().shared_bytes_per_block, spec.schedule.block_k),
                "use larger tiles");
  const LaunchShape shape = shape_of(
      spec.schedule, call.key_counts.extents[0] * call.key_counts.extents[1] * arguments.blocks_per_head, shared);
  for (const std::int32_t fill : {0, 1}) {
    arguments.fill = fill;
    executor.launch(kernel, shape, &arguments, sizeof(arguments), stream);
  }
}

void check_mask(const ListMask& call) {
  require_rank(call.mask, "mask", 4);
  const auto& extents = call.mask.extents;
  if (call.mask.dtype != DataType::boolean)
    refuse(fmt::format("mask has dtype {}", to_string(call.mask.dtype)), "boolean", "convert it");
  if (call.mask.data == nullptr)
    refuse("mask is a null pointer", "memory of the runtime's device", "pass the tensor's address");
  if (extents[3] > 1 && call.mask.strides[3] != 1)
    refuse(fmt::format("mask has stride {} in its last dimension", call.mask.strides[3]), "stride 1",
           "make it contiguous in its last dimension");
  for (std::size_t i = 0; i < 4; ++i)
    if (extents[i] < 1 || call.mask.strides[i] < 0)
      refuse(fmt::format("mask has extent {} and stride {} in dimension {}", extents[i], call.mask.strides[i], i),
             "extents of 1 and more, strides of 0 and more", "check how the view was made");
  check_dense(call.counts, "counts", DataType::int32, {extents[0], extents[1], extents[2]});
  check_dense(call.indices, "indices", DataType::int32, {extents[0], extents[1], extents[2], extents[3]});
}

void launch_mask(Executor& executor, const Kernel& kernel, const Spec& spec, const ListMask& call, Stream stream) {
  const auto& extents = call.mask.extents;
  MaskArguments arguments{};
  arguments.mask = static_cast<const std::uint8_t*>(call.mask.data);
  arguments.mask_batch_stride = call.mask.strides[0];
  arguments.mask_head_stride = call.mask.strides[1];
  arguments.mask_tile_stride = call.mask.strides[2];
  arguments.counts = static_cast<std::int32_t*>(call.counts.data);
  arguments.indices = static_cast<std::int32_t*>(call.indices.data);
  arguments.rows = counted(extents[0] * extents[1] * extents[2], "lists");
  arguments.heads = static_cast<std::int32_t>(extents[1]);
  arguments.query_tiles = static_cast<std::int32_t>(extents[2]);
  arguments.key_tiles = counted(extents[3], "key tiles");
  executor.launch(kernel, shape_of(spec.schedule, ceiling_divide(arguments.rows, spec.schedule.warps), 0), &arguments,
                  sizeof(arguments), stream);
}

} // namespace tilewright::operators

namespace tilewright {

Problem Runtime::problem_of(const PoolTiles& call) {
  operators::check_pool(call);
  return operators::pool_problem(call);
}

Problem Runtime::problem_of(const SelectTiles& call) {
  const operators::SelectShape shape = operators::check_select(call);
  return operators::select_problem(shape.dtype, shape.head_dim);
}

Problem Runtime::problem_of(const ListMask& call) {
  operators::check_mask(call);
  return parse_problem("list_mask:");
}

} // namespace tilewright
