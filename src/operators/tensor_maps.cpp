#include "operators/tensor_maps.hpp"

#include <algorithm>
#include <cmath>

#include <fmt/format.h>

#include "operators/launch.hpp"
#include "schedule/feasibility.hpp"
#include "schedule/hopper.hpp"
#include <tilewright/error.hpp>

namespace tilewright::operators {
namespace {

constexpr std::uint32_t box_columns = 64; // 128 bytes: the swizzle's width
constexpr std::uint32_t map_rank = 5;

/// One tensor of the call. Strides in elements.
struct HeadTensor {
  const char* name;
  void* data;
  DataType dtype;
  Strides strides;
  std::int32_t batch, heads, head_dim;

  [[nodiscard]] void* at_token(std::int64_t token) const {
    return static_cast<std::byte*>(data) + bytes(token * strides.token);
  }
  [[nodiscard]] std::int64_t bytes(std::int64_t elements) const {
    return elements * static_cast<std::int64_t>(size_of(dtype));
  }
};

class RequestBuilder {
public:
  RequestBuilder(const HeadTensor& tensor, std::int64_t first_token) : tensor_(tensor) {
    request_.data = tensor.at_token(first_token);
    request_.dtype = tensor.dtype;
    request_.rank = map_rank;
  }

  /// The next dimension, innermost first; stride in elements. A dimension of one element needs a stride all the same.
  RequestBuilder& dimension(std::int64_t extent, std::int64_t stride, std::int32_t box) {
    request_.extents[dimensions_] = static_cast<std::uint64_t>(extent);
    request_.strides_bytes[dimensions_] =
        static_cast<std::uint64_t>(tensor_.bytes(extent == 1 ? tensor_.strides.token : stride));
    request_.box[dimensions_] = static_cast<std::uint32_t>(box);
    ++dimensions_;
    return *this;
  }
  TensorMapRequest take() { return request_; }

private:
  const HeadTensor& tensor_;
  TensorMapRequest request_;
  std::size_t dimensions_ = 0;
};

TensorMapRequest linear_map(const HeadTensor& tensor, std::int64_t first_token, std::int64_t tokens,
                            std::int32_t rows) {
  return RequestBuilder(tensor, first_token)
      .dimension(tensor.head_dim, 1, box_columns)
      .dimension(std::max<std::int64_t>(tokens, 1), tensor.strides.token, rows)
      .dimension(tensor.heads, tensor.strides.head, 1)
      .dimension(tensor.batch, tensor.strides.batch, 1)
      .dimension(1, 0, 1)
      .take();
}

/// The columns and the outermost dimension of a canvas map.
struct HeadDimensions {
  std::int64_t columns, outer, outer_stride;
  HeadPlacement placement;
};

HeadDimensions head_dimensions(const HeadTensor& tensor) {
  const Strides& s = tensor.strides;
  const std::int64_t batch = tensor.batch, heads = tensor.heads, head_dim = tensor.head_dim;
  // All heads of a token are columns of one row; gaps between heads are columns that nobody asks for.
  const std::int64_t row = heads == 1 ? head_dim : (heads - 1) * s.head + head_dim;
  if (row <= s.token)
    return {row, batch, s.batch, {static_cast<std::int32_t>(s.head), 1, 0}};
  if (batch == 1 || s.batch == heads * s.head)
    return {head_dim, batch * heads, s.head, {0, tensor.heads, 1}};
  if (s.head == batch * s.batch)
    return {head_dim, batch * heads, s.batch, {0, 1, tensor.batch}};
  throw Error(ErrorCode::unsupported,
              fmt::format("{} has {} batches with stride {}, {} heads with stride {} and tokens with stride {}, in "
                          "elements",
                          tensor.name, batch, s.batch, heads, s.head, s.token),
              "the sm90 family reads tiles of a canvas where all heads of a token lie within one token's stride, or "
              "where batches and heads follow each other with one stride",
              "make the tensor contiguous, give one batch at a time, or use family=sm80");
}

TensorMapRequest canvas_map(const HeadTensor& tensor, const HeadDimensions& heads, const TokenGrid& grid,
                            const Extent3& box) {
  const std::int64_t token = tensor.strides.token;
  return RequestBuilder(tensor, 0)
      .dimension(heads.columns, 1, box_columns)
      .dimension(grid.w, token, box.w)
      .dimension(grid.h, token * grid.w, box.h)
      .dimension(grid.t, token * grid.w * grid.h, box.t)
      .dimension(heads.outer, heads.outer_stride, 1)
      .take();
}

std::int64_t video_tokens(const Problem& problem, const TokenGrid& grid, const Extent3& tile) {
  if (problem.layout == Layout::tiled && problem.pattern != PatternKind::dense)
    return std::int64_t{grid.tiles_t} * grid.tiles_h * grid.tiles_w * tile.volume();
  return std::int64_t{grid.t} * grid.h * grid.w;
}

} // namespace

MappedTensors map_tensors(const Spec& spec, const AttentionParameters& p, std::int32_t batch) {
  const Problem& problem = spec.problem;
  const std::int32_t kv_heads = p.heads / p.heads_per_kv_head;
  const std::int32_t query_rows = schedule::hopper::consumer_rows;
  const std::int32_t key_rows = spec.schedule.block_k / spec.schedule.cluster;
  const auto tensor = [&](const char* name, const void* data, const Strides& strides, std::int32_t heads) {
    return HeadTensor{name, const_cast<void*>(data), problem.dtype, strides, batch, heads, problem.head_dim};
  };
  const HeadTensor query = tensor("q", p.query, p.query_strides, p.heads);
  const HeadTensor key = tensor("k", p.key, p.key_strides, kv_heads);
  const HeadTensor value = tensor("v", p.value, p.value_strides, kv_heads);
  const HeadTensor output = tensor("out", p.output, p.output_strides, p.heads);
  const std::int64_t query_tokens = video_tokens(problem, p.query_grid, problem.tile);
  const std::int64_t key_tokens = video_tokens(problem, p.key_grid, problem.key_tile);

  MappedTensors maps{};
  if (schedule::hopper::is_linear(problem)) {
    maps.video = {linear_map(query, 0, query_tokens, query_rows), linear_map(key, 0, key_tokens, key_rows),
                  linear_map(value, 0, key_tokens, key_rows), linear_map(output, 0, query_tokens, query_rows)};
  } else {
    const Extent3 query_box = schedule::hopper::box_of(problem.tile, query_rows).value();
    const Extent3 key_box = schedule::hopper::box_of(problem.key_tile, key_rows).value();
    const auto canvas = [](const HeadTensor& of, const TokenGrid& grid, const Extent3& box, HeadPlacement& placement) {
      const HeadDimensions heads = head_dimensions(of);
      placement = heads.placement;
      return canvas_map(of, heads, grid, box);
    };
    maps.video = {canvas(query, p.query_grid, query_box, maps.query_heads),
                  canvas(key, p.key_grid, key_box, maps.key_heads),
                  canvas(value, p.key_grid, key_box, maps.value_heads),
                  canvas(output, p.query_grid, query_box, maps.output_heads)};
  }
  if (problem.text == Text::present)
    maps.text = {linear_map(query, query_tokens, p.text_length, query_rows),
                 linear_map(key, key_tokens, p.text_length, key_rows),
                 linear_map(value, key_tokens, p.text_length, key_rows),
                 linear_map(output, query_tokens, p.text_rows, query_rows)};
  return maps;
}

MappedBackwardTensors map_backward_tensors(const Spec& spec, const AttentionParameters& p, const BackwardParameters& b,
                                           std::int32_t batch) {
  const Problem& problem = spec.problem;
  const std::int32_t rows = schedule::hopper::consumer_rows;
  struct Side {
    const TokenGrid& grid;
    const Extent3& tile;
    std::int32_t heads;
  };
  const Side queries{p.query_grid, problem.tile, p.heads};
  const Side keys{p.key_grid, problem.key_tile, p.heads / p.heads_per_kv_head};

  MappedBackwardTensors maps{};
  if (problem.text == Text::present)
    maps.text.emplace();
  /// Maps the tensor as entry `which` of one of BackwardMapRequests' members.
  const auto add = [&](TensorMapRequest(BackwardMapRequests::*member)[2], int which, HeadPlacement* placements,
                       const char* name, const void* data, const Strides& strides, const Side& side,
                       std::int32_t text_rows) {
    const HeadTensor tensor{name, const_cast<void*>(data), problem.dtype, strides, batch, side.heads, problem.head_dim};
    const std::int64_t tokens = video_tokens(problem, side.grid, side.tile);
    if (schedule::hopper::is_linear(problem)) {
      (maps.video.*member)[which] = linear_map(tensor, 0, tokens, rows);
    } else {
      const HeadDimensions heads = head_dimensions(tensor);
      placements[which] = heads.placement;
      (maps.video.*member)[which] =
          canvas_map(tensor, heads, side.grid, schedule::hopper::box_of(side.tile, rows).value());
    }
    if (maps.text)
      ((*maps.text).*member)[which] = linear_map(tensor, tokens, text_rows, rows);
  };
  using Requests = BackwardMapRequests;
  const bool of_keys = problem.op == Operator::attention_backward_key;
  const auto query_side = of_keys ? &Requests::walked : &Requests::own;
  const auto key_side = of_keys ? &Requests::own : &Requests::walked;
  HeadPlacement* const query_heads = of_keys ? maps.walked_heads : maps.own_heads;
  HeadPlacement* const key_heads = of_keys ? maps.own_heads : maps.walked_heads;
  add(query_side, 0, query_heads, "q", p.query, p.query_strides, queries, p.text_length);
  add(query_side, 1, query_heads, "dout", b.output_gradient, b.output_gradient_strides, queries, p.text_length);
  add(key_side, 0, key_heads, "k", p.key, p.key_strides, keys, p.text_length);
  add(key_side, 1, key_heads, "v", p.value, p.value_strides, keys, p.text_length);
  maps.video.gradients = of_keys ? 2 : 1;
  if (of_keys) {
    add(&Requests::gradient, 0, maps.gradient_heads, "dk", b.key_gradient, b.key_gradient_strides, keys, p.text_rows);
    add(&Requests::gradient, 1, maps.gradient_heads, "dv", b.value_gradient, b.value_gradient_strides, keys,
        p.text_rows);
  } else {
    add(&Requests::gradient, 0, maps.gradient_heads, "dq", b.query_gradient, b.query_gradient_strides, queries,
        p.text_rows);
  }
  if (maps.text)
    maps.text->gradients = maps.video.gradients;
  return maps;
}

DealtWork deal_work(const Spec& spec, const AttentionParameters& p, std::int32_t batch, double mean_window) {
  const Schedule& schedule = spec.schedule;
  const std::int64_t tile = spec.problem.pattern == PatternKind::dense ? schedule.block_q : spec.problem.tile.volume();
  const std::int64_t tiles = std::int64_t{p.query_grid.tiles_t} * p.query_grid.tiles_h * p.query_grid.tiles_w;
  const std::int64_t key_tiles = std::int64_t{p.key_grid.tiles_t} * p.key_grid.tiles_h * p.key_grid.tiles_w;
  // Query blocks that one item has: one for each thread block of the cluster, or for each consumer.
  const std::int32_t in_item = schedule::hopper::is_merged(schedule) ? schedule.consumers : schedule.cluster;

  DealtWork dealt{};
  WorkParameters& work = dealt.work;
  work.heads = batch * p.heads;
  work.video_blocks = static_cast<std::int32_t>(tiles * tile / schedule.block_q);
  work.video_items = ceiling_divide(work.video_blocks, in_item);
  const std::int32_t text_blocks =
      spec.problem.text == Text::present ? ceiling_divide(p.text_rows, schedule.block_q) : 0;
  work.text_items = ceiling_divide(text_blocks, in_item);
  work.text_rounds = static_cast<std::int32_t>(std::max(std::lround(static_cast<double>(key_tiles) / mean_window), 1L));
  if (!schedule::hopper::is_merged(schedule)) { // merged: an item's last consumers may have nothing to do
    work.video_blocks = work.video_items * in_item;
    dealt.query_blocks = work.video_blocks + work.text_items * in_item;
  } else {
    dealt.query_blocks = work.video_blocks + text_blocks;
  }
  dealt.items = std::int64_t{work.heads} * (work.video_items + work.text_items);
  return dealt;
}

LaunchShape hopper_launch_shape(const Spec& spec, const DealtWork& work, std::int32_t multiprocessors) {
  const Schedule& schedule = spec.schedule;
  const std::int64_t cluster = schedule.cluster;
  const std::int64_t resident = std::int64_t{multiprocessors} * schedule.blocks_per_processor / cluster;
  const std::int64_t clusters = std::min(work.items, std::max<std::int64_t>(resident, 1));
  LaunchShape shape;
  shape.grid.x = static_cast<std::uint32_t>(clusters * cluster);
  shape.block.x = (1u + schedule.consumers) * warpgroup_size;
  shape.cluster.x = schedule.cluster;
  shape.shared_bytes = static_cast<std::uint32_t>(schedule::shared_memory_bytes(spec.problem, schedule));
  return shape;
}

} // namespace tilewright::operators
