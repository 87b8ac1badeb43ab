#include "operators/launch.hpp"

#include <algorithm>
#include <cmath>
#include <limits>

#include <fmt/format.h>

#include <tilewright/error.hpp>

namespace tilewright::operators {
namespace {

constexpr double log2_of_e = 1.4426950408889634;

/// A tile of the problem, or, for a dense one, a block of the sequence.
Extent3 tile_or_block(const Extent3& tile, std::int32_t block) {
  return tile == Extent3{} ? Extent3{1, 1, block} : tile;
}

} // namespace

std::int32_t counted(std::int64_t number, const char* what) {
  if (number > std::numeric_limits<std::int32_t>::max())
    throw Error(ErrorCode::unsupported, fmt::format("the call has {} {}", number, what), "fewer than 2^31",
                "split the batch or the heads");
  return static_cast<std::int32_t>(number);
}

TokenGrid grid_of(const Extent3& canvas, const Extent3& tile) {
  return {canvas.t,
          canvas.h,
          canvas.w,
          ceiling_divide(canvas.t, tile.t),
          ceiling_divide(canvas.h, tile.h),
          ceiling_divide(canvas.w, tile.w)};
}

std::int64_t shared_stride(const TensorView& view, std::size_t dimension) {
  return view.extents[dimension] == 1 ? 0 : view.strides[dimension];
}

std::int64_t size_stride(const std::optional<TensorView>& sizes) {
  return sizes && sizes->rank == 2 ? shared_stride(*sizes, 0) : 0;
}

const std::int32_t* size_data(const std::optional<TensorView>& sizes) {
  return sizes ? static_cast<const std::int32_t*>(sizes->data) : nullptr;
}

float scale_log2_of(std::optional<float> scale, std::int64_t head_dim) {
  return static_cast<float>((scale ? double{*scale} : 1.0 / std::sqrt(static_cast<double>(head_dim))) * log2_of_e);
}

std::int64_t query_blocks(const LaunchRequest& request, std::int32_t block_q) {
  const Extent3 tile = tile_or_block(request.spec.problem.tile, block_q);
  const TokenGrid grid = grid_of(request.shape.query_canvas, tile);
  const std::int64_t tiles = std::int64_t{grid.tiles_t} * grid.tiles_h * grid.tiles_w;
  return tiles * (tile.volume() / block_q) + ceiling_divide(request.shape.text_rows, block_q);
}

AttentionParameters attention_parameters(const LaunchRequest& request, std::int32_t block_q, std::int32_t block_k) {
  const auto& [call, pattern, shape, spec] = request;
  AttentionParameters p{};
  p.query = call.q.data;
  p.key = call.k.data;
  p.value = call.v.data;
  p.output = call.out.data;
  p.query_strides = strides_of(call.q, call.layout);
  p.key_strides = strides_of(call.k, call.layout);
  p.value_strides = strides_of(call.v, call.layout);
  p.output_strides = strides_of(call.out, call.layout);
  if (call.lse) {
    p.log_sum_exp = static_cast<float*>(call.lse->data);
    p.log_sum_exp_batch_stride = call.lse->strides[0];
    p.log_sum_exp_head_stride = call.lse->strides[1];
  }
  p.query_grid = grid_of(shape.query_canvas, tile_or_block(spec.problem.tile, block_q));
  p.key_grid = grid_of(shape.key_canvas, tile_or_block(spec.problem.key_tile, block_k));
  p.heads = static_cast<std::int32_t>(shape.heads);
  p.heads_per_kv_head = static_cast<std::int32_t>(shape.heads / shape.kv_heads);
  p.query_blocks = static_cast<std::int32_t>(query_blocks(request, block_q));
  p.text_rows = static_cast<std::int32_t>(shape.text_rows);
  p.text_length = static_cast<std::int32_t>(shape.text_length);
  if (call.coarse) {
    p.blend.coarse = static_cast<const float*>(call.coarse->data);
    p.blend.coarse_head_stride = call.coarse->extents[2] * call.coarse->extents[3];
    p.blend.coarse_batch_stride = p.blend.coarse_head_stride * shape.heads;
  }
  if (call.gate) {
    p.blend.gate = call.gate->data;
    p.blend.gate_strides = strides_of(*call.gate, call.layout);
  }
  if (call.fine) {
    p.blend.fine = call.fine->data;
    p.blend.fine_strides = strides_of(*call.fine, call.layout);
  }
  p.scale_log2 = scale_log2_of(call.scale, shape.head_dim);
  return p;
}

void launch_attention(Executor& executor, const Kernel& kernel, const LaunchRequest& request, Stream stream) {
  if (request.spec.schedule.family == Family::sm90)
    launch_sm90(executor, kernel, request, stream);
  else
    launch_sm80(executor, kernel, request, stream);
}

DenseParameters pattern_parameters(const LaunchRequest&, const Dense&) { return {}; }

SlidingTileParameters pattern_parameters(const LaunchRequest& request, const SlidingTile& pattern) {
  SlidingTileParameters p{};
  if (request.spec.problem.window != Window{})
    return p; // the kernel knows its window
  // Windows beyond the canvas act like the canvas; an axis has fewer tiles than 2^15 tokens of 2^31 would need.
  const auto narrow = [](std::int32_t tiles) {
    return static_cast<std::uint16_t>(std::min<std::int32_t>(tiles, std::numeric_limits<std::uint16_t>::max()));
  };
  for (std::size_t head = 0; head < static_cast<std::size_t>(request.shape.heads); ++head) {
    const Window& window = pattern.windows[pattern.windows.size() == 1 ? 0 : head];
    p.windows[head][0] = narrow(window.t);
    p.windows[head][1] = narrow(window.h);
    p.windows[head][2] = narrow(window.w);
  }
  return p;
}

BlockListParameters list_parameters(const TensorView& counts, const TensorView& indices) {
  BlockListParameters p{};
  p.counts = static_cast<const std::int32_t*>(counts.data);
  p.indices = static_cast<const std::int32_t*>(indices.data);
  p.count_batch_stride = shared_stride(counts, 0);
  p.count_head_stride = shared_stride(counts, 1);
  p.index_batch_stride = shared_stride(indices, 0);
  p.index_head_stride = shared_stride(indices, 1);
  p.index_tile_stride = indices.strides[2];
  return p;
}

BlockListParameters pattern_parameters(const LaunchRequest&, const BlockList& pattern) {
  BlockListParameters p = list_parameters(pattern.counts, pattern.indices);
  p.query_sizes = size_data(pattern.query_sizes);
  p.key_sizes = size_data(pattern.key_sizes);
  p.query_size_batch_stride = size_stride(pattern.query_sizes);
  p.key_size_batch_stride = size_stride(pattern.key_sizes);
  return p;
}

} // namespace tilewright::operators
