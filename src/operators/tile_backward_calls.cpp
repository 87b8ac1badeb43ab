#include "operators/tile_backward_calls.hpp"

#include <cmath>
#include <limits>

#include <fmt/format.h>

#include "kernels/tile_parameters.cuh"
#include "operators/call_shape.hpp"
#include "operators/launch.hpp"
#include "operators/video_sparse.hpp"
#include "schedule/feasibility.hpp"
#include <tilewright/error.hpp>

namespace tilewright::operators {
namespace {

template <class Arguments>
void launch(Executor& executor, const Prepared& prepared, std::int64_t blocks, const Arguments& arguments,
            Stream stream) {
  const Schedule& schedule = prepared.spec.schedule;
  LaunchShape shape;
  shape.grid.x = static_cast<std::uint32_t>(counted(blocks, "thread blocks"));
  shape.block.x = schedule.warps * warp_size;
  shape.shared_bytes = static_cast<std::uint32_t>(schedule::shared_memory_bytes(prepared.spec.problem, schedule));
  executor.launch(*prepared.kernel, shape, &arguments, sizeof(arguments), stream);
}

float* floats(const TensorView& view) { return static_cast<float*>(view.data); }

/// Tiles of all heads and batches: a mean each.
std::int64_t means_of(const TensorView& means) { return means.extents[0] * means.extents[1] * means.extents[2]; }

CoarseStatistics statistics_of(const VideoSparseBackwardWorkspace& workspace) {
  return {floats(workspace.exponents), floats(workspace.deltas), counted(workspace.deltas.extents[2], "query tiles")};
}

TileCounts counts_of(const Canvas& canvas, const Tile& tile, const std::optional<TensorView>& sizes) {
  return {grid_of(canvas, tile), tile.t, tile.h, tile.w, size_data(sizes), size_stride(sizes)};
}

} // namespace

std::int64_t statistics_rows(std::int64_t query_tiles) {
  return ceiling_divide(query_tiles, coarse_statistics_multiple) * coarse_statistics_multiple;
}

float blend_factor(const Tile& tile) {
  const double exponent = std::round(std::log2(static_cast<double>(tile.volume())) / 2);
  return static_cast<float>(std::exp2(-exponent));
}

void launch_blend_backward(Executor& executor, const Prepared& prepared, const VideoSparseAttentionBackward& call,
                           const VideoSparseWorkspace& forward, const VideoSparseBackwardWorkspace& workspace,
                           Stream stream) {
  BlendBackwardArguments p{};
  p.output_gradient = call.dout.data;
  p.output_gradient_strides = strides_of(call.dout, call.forward.layout);
  if (call.forward.gate) {
    p.gate = call.forward.gate->data;
    p.gate_strides = strides_of(*call.forward.gate, call.forward.layout);
  }
  if (call.dgate) {
    p.gate_gradient = call.dgate->data;
    p.gate_gradient_strides = strides_of(*call.dgate, call.forward.layout);
  }
  p.coarse_output = floats(forward.coarse_output);
  p.log_sum_exp = floats(forward.coarse_lse);
  p.coarse_gradient = workspace.coarse_gradient.data;
  p.statistics = statistics_of(workspace);
  p.grid = grid_of(call.forward.canvas, call.forward.tile);
  p.sizes = size_data(call.forward.query_sizes);
  p.size_batch_stride = size_stride(call.forward.query_sizes);
  p.factor = blend_factor(call.forward.tile);
  p.heads = static_cast<std::int32_t>(workspace.coarse_gradient.extents[1]);
  p.rows = counted(means_of(workspace.coarse_gradient), "query tiles");
  launch(executor, prepared, ceiling_divide(p.rows, prepared.spec.schedule.warps), p, stream);
}

void launch_coarse_backward(Executor& executor, const Prepared& prepared, const VideoSparseAttentionBackward& call,
                            const VideoSparseWorkspace& forward, const VideoSparseBackwardWorkspace& workspace,
                            Stream stream) {
  const bool of_keys = prepared.spec.problem.op == Operator::coarse_backward_key;
  const Schedule& schedule = prepared.spec.schedule;
  const auto &q = forward.pooled_query.extents, &k = forward.pooled_key.extents;
  CoarseBackwardArguments p{};
  p.query_means = forward.pooled_query.data;
  p.key_means = forward.pooled_key.data;
  p.value_means = forward.pooled_value.data;
  p.coarse_gradient = workspace.coarse_gradient.data;
  p.statistics = statistics_of(workspace);
  p.query_counts = counts_of(call.forward.canvas, call.forward.tile, call.forward.query_sizes);
  p.key_counts = counts_of(key_canvas_of(call.forward), call.forward.tile, call.forward.key_sizes);
  p.query_shares = floats(workspace.query_shares);
  p.key_shares = floats(workspace.key_shares);
  p.value_shares = floats(workspace.value_shares);
  p.heads = static_cast<std::int32_t>(q[1]);
  p.heads_per_kv_head = static_cast<std::int32_t>(q[1] / k[1]);
  p.query_tiles = counted(q[2], "query tiles");
  p.key_tiles = counted(k[2], "key tiles");
  p.blocks_per_head = static_cast<std::int32_t>(of_keys ? ceiling_divide(k[2], schedule.block_k)
                                                        : ceiling_divide(q[2], schedule.block_q));
  p.scale_log2 = scale_log2_of(call.forward.scale, q[3]);
  const double scale = call.forward.scale ? double{*call.forward.scale} : 1 / std::sqrt(static_cast<double>(q[3]));
  p.value_factor = 1 / blend_factor(call.forward.tile);
  p.score_factor = static_cast<float>(scale * double{p.value_factor});
  launch(executor, prepared, q[0] * (of_keys ? k[1] : q[1]) * p.blocks_per_head, p, stream);
}

} // namespace tilewright::operators
