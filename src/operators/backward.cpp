#include "operators/backward.hpp"

#include <algorithm>
#include <cmath>
#include <limits>

#include <fmt/format.h>

#include "operators/launch_backward_sm90.hpp"
#include "operators/list_check.hpp"
#include "operators/runtime_state.hpp"
#include "operators/tile_calls.hpp"
#include "problem/relation.hpp"
#include "schedule/feasibility.hpp"
#include <tilewright/error.hpp>

namespace tilewright {
namespace operators {
namespace {

constexpr std::int64_t part_alignment = 128;

constexpr std::int64_t round_up(std::int64_t value, std::int64_t multiple) {
  return (value + multiple - 1) / multiple * multiple;
}

/// Hands out parts of the workspace, each aligned.
class Parts {
public:
  explicit Parts(void* base) : base_(reinterpret_cast<std::uintptr_t>(base)) {}

  template <typename Value> Value* take(std::int64_t count) {
    const std::uintptr_t at = base_ == 0 ? 0 : base_ + static_cast<std::uintptr_t>(bytes_);
    bytes_ += round_up(count * static_cast<std::int64_t>(sizeof(Value)), part_alignment);
    return reinterpret_cast<Value*>(at);
  }
  [[nodiscard]] std::size_t bytes() const { return static_cast<std::size_t>(bytes_); }

private:
  std::uintptr_t base_;
  std::int64_t bytes_ = 0;
};

/// Extents of lists by key tile. They are shared by batches and heads where the lists are.
struct TransposedExtents {
  std::int64_t batch, heads, tiles, capacity;

  TransposedExtents(const BlockList& lists, const CallShape& shape)
      : batch(std::max(lists.counts.extents[0], lists.indices.extents[0])),
        heads(std::max(lists.counts.extents[1], lists.indices.extents[1])),
        tiles(problem::Tiling(shape.key_canvas, lists.key_tile.value_or(lists.tile)).tile_count()),
        capacity(lists.counts.extents[2] * lists.indices.extents[3]) {}
};

TransposeLists lay_out_lists(const BlockList& lists, const TransposedExtents& extents, Parts& parts) {
  const auto part = [&](std::int64_t last) {
    return TensorView::contiguous(parts.take<std::int32_t>(extents.batch * extents.heads * last), DataType::int32,
                                  {extents.batch, extents.heads, last});
  };
  TransposeLists transpose{};
  transpose.counts = lists.counts;
  transpose.indices = lists.indices;
  transpose.key_counts = part(extents.tiles);
  transpose.offsets = part(extents.tiles + 1);
  transpose.query_indices = part(extents.capacity);
  return transpose;
}

/// Lists by key tile that the caller has made.
void check_transposed(const TransposeLists& transposed, const Pattern& pattern, const CallShape& shape) {
  const auto* const lists = std::get_if<BlockList>(&pattern);
  if (lists == nullptr)
    throw Error(ErrorCode::invalid_argument, "transposed is given for a pattern without lists",
                "block lists are allowed to bring their transposed lists", "leave it out");
  check_transpose(transposed);
  const TransposedExtents needed(*lists, shape);
  const auto& extents = transposed.key_counts.extents;
  if (extents[0] != needed.batch || extents[1] != needed.heads || extents[2] != needed.tiles)
    throw Error(
        ErrorCode::invalid_argument,
        fmt::format("transposed has key_counts of extents [{}, {}, {}]", extents[0], extents[1], extents[2]),
        fmt::format("[{}, {}, {}]: those of the lists, and the key tiles", needed.batch, needed.heads, needed.tiles),
        "transpose the lists of this call");
}

TransposedListParameters transposed_parameters(const TransposeLists& lists) {
  return {static_cast<const std::int32_t*>(lists.offsets.data),
          static_cast<const std::int32_t*>(lists.query_indices.data),
          shared_stride(lists.offsets, 0),
          shared_stride(lists.offsets, 1),
          shared_stride(lists.query_indices, 0),
          shared_stride(lists.query_indices, 1)};
}

/// Key blocks of block_k rows in one head: the video's tiles, then the text.
std::int64_t key_blocks(const LaunchRequest& request, std::int32_t block_k) {
  const Extent3 tile =
      request.spec.problem.key_tile == Extent3{} ? Extent3{1, 1, block_k} : request.spec.problem.key_tile;
  const TokenGrid grid = grid_of(request.shape.key_canvas, tile);
  const std::int64_t tiles = std::int64_t{grid.tiles_t} * grid.tiles_h * grid.tiles_w;
  return tiles * (tile.volume() / block_k) + (request.shape.text_rows + block_k - 1) / block_k;
}

} // namespace

AttentionForward forward_call(const AttentionBackward& call) {
  return {.q = call.q,
          .k = call.k,
          .v = call.v,
          .out = call.out,
          .lse = call.lse,
          .layout = call.layout,
          .scale = call.scale};
}

CallShape check_backward(const AttentionBackward& call, const Pattern& pattern) {
  const CallShape shape = check_call(forward_call(call), pattern);
  check_like(call.dout, "dout", call.q, "q", call.layout, false);
  if (call.dlse)
    check_log_sum_exp(*call.dlse, "dlse", shape, false);
  check_like(call.dq, "dq", call.q, "q", call.layout, true);
  check_like(call.dk, "dk", call.k, "k", call.layout, true);
  check_like(call.dv, "dv", call.v, "v", call.layout, true);
  if (call.transposed)
    check_transposed(*call.transposed, pattern, shape);
  return shape;
}

void set_statistics_rows(RowStatistics& statistics, const CallShape& shape, const Pattern& pattern) {
  std::int64_t video = shape.query_tokens; // dense
  if (const auto* sliding = std::get_if<SlidingTile>(&pattern))
    video = problem::Tiling(shape.query_canvas, sliding->tile).token_count(Layout::tiled);
  else if (const auto* lists = std::get_if<BlockList>(&pattern))
    video = problem::Tiling(shape.query_canvas, lists->tile).token_count(Layout::tiled);
  const std::int64_t text_first = round_up(video, row_statistics_multiple);
  const std::int64_t rows = text_first + round_up(shape.text_rows, row_statistics_multiple);
  if (rows > std::numeric_limits<std::int32_t>::max())
    throw Error(ErrorCode::unsupported, fmt::format("a head has {} query rows in whole blocks", rows),
                "fewer than 2^31", "split the canvas");
  statistics.text_first = static_cast<std::int32_t>(text_first);
  statistics.rows = static_cast<std::int32_t>(rows);
  statistics.head_stride = rows;
  statistics.batch_stride = rows * shape.heads;
}

BackwardWorkspace lay_out(const AttentionBackward& call, const CallShape& shape, const Pattern& pattern) {
  BackwardWorkspace workspace{};
  Parts parts(call.workspace);
  set_statistics_rows(workspace.statistics, shape, pattern);
  const std::int64_t rows = workspace.statistics.batch_stride * shape.batch;
  workspace.statistics.exponents = parts.take<float>(rows);
  workspace.statistics.deltas = parts.take<float>(rows);
  if (const auto* lists = std::get_if<BlockList>(&pattern))
    workspace.transposed = call.transposed ? *call.transposed : lay_out_lists(*lists, {*lists, shape}, parts);
  workspace.bytes = parts.bytes();
  return workspace;
}

BackwardParameters backward_parameters(const AttentionBackward& call, const LaunchRequest& request,
                                       const BackwardWorkspace& workspace, const TileShares& shares) {
  BackwardParameters p{};
  p.output_gradient = call.dout.data;
  if (call.dlse) {
    p.log_sum_exp_gradient = static_cast<const float*>(call.dlse->data);
    p.log_sum_exp_gradient_batch_stride = call.dlse->strides[0];
    p.log_sum_exp_gradient_head_stride = call.dlse->strides[1];
  }
  p.query_gradient = call.dq.data;
  p.key_gradient = call.dk.data;
  p.value_gradient = call.dv.data;
  p.output_gradient_strides = strides_of(call.dout, call.layout);
  p.query_gradient_strides = strides_of(call.dq, call.layout);
  p.key_gradient_strides = strides_of(call.dk, call.layout);
  p.value_gradient_strides = strides_of(call.dv, call.layout);
  p.statistics = workspace.statistics;
  p.shares = shares;
  if (workspace.transposed)
    p.transposed = transposed_parameters(*workspace.transposed);
  p.key_blocks = static_cast<std::int32_t>(key_blocks(request, request.spec.schedule.block_k));
  p.scale = call.scale ? *call.scale : static_cast<float>(1.0 / std::sqrt(static_cast<double>(request.shape.head_dim)));
  return p;
}

void launch_backward(Executor& executor, const Kernel& kernel, const AttentionBackward& call,
                     const LaunchRequest& request, const BackwardWorkspace& workspace, const TileShares& shares,
                     Stream stream) {
  const Schedule& schedule = request.spec.schedule;
  const Operator op = request.spec.problem.op;
  const BackwardParameters backward = backward_parameters(call, request, workspace, shares);
  AttentionParameters p = attention_parameters(request, schedule.block_q, schedule.block_k);
  if (op == Operator::attention_backward_delta) // every row of the statistics, those that no query has too
    p.query_blocks = static_cast<std::int32_t>(
        query_blocks(request, schedule.block_q) - (request.shape.text_rows + schedule.block_q - 1) / schedule.block_q +
        (workspace.statistics.rows - workspace.statistics.text_first) / schedule.block_q);
  if (schedule.family == Family::sm90) {
    std::visit(
        [&](const auto& pattern) {
          const AttentionBackwardArguments<decltype(pattern_parameters(request, pattern))> arguments{
              {p, pattern_parameters(request, pattern)}, backward};
          launch_backward_sm90(executor, kernel, request.spec, arguments,
                               static_cast<std::int32_t>(request.shape.batch), mean_window(request, p.key_grid),
                               stream);
        },
        request.pattern);
    return;
  }
  const std::int64_t blocks = op == Operator::attention_backward_key
                                  ? request.shape.batch * request.shape.kv_heads * backward.key_blocks
                                  : request.shape.batch * request.shape.heads * p.query_blocks;
  if (blocks > std::numeric_limits<std::int32_t>::max())
    throw Error(ErrorCode::unsupported, fmt::format("the call needs {} thread blocks", blocks),
                "fewer than 2^31 thread blocks in one launch", "split the batch");
  LaunchShape shape;
  shape.grid.x = static_cast<std::uint32_t>(blocks);
  shape.block.x = schedule.warps * warp_size;
  shape.shared_bytes = static_cast<std::uint32_t>(schedule::shared_memory_bytes(request.spec.problem, schedule));
  std::visit(
      [&](const auto& pattern) {
        const AttentionBackwardArguments<decltype(pattern_parameters(request, pattern))> arguments{
            {p, pattern_parameters(request, pattern)}, backward};
        executor.launch(kernel, shape, &arguments, sizeof(arguments), stream);
      },
      request.pattern);
}

BackwardPlan plan_backward(Executor& executor, const AttentionBackward& call, const Pattern& pattern,
                           const Prepare& prepare, Stream stream) {
  BackwardPlan plan{call, pattern, forward_call(call), check_backward(call, pattern), {}, {}, {}};
  plan.workspace = lay_out(call, plan.shape, pattern);
  if (call.workspace == nullptr || call.workspace_bytes < plan.workspace.bytes ||
      reinterpret_cast<std::uintptr_t>(call.workspace) % part_alignment != 0)
    throw Error(ErrorCode::invalid_argument,
                fmt::format("the workspace is {} bytes at {}", call.workspace_bytes, fmt::ptr(call.workspace)),
                fmt::format("{} bytes and more, at a multiple of {}", plan.workspace.bytes, part_alignment),
                "ask Runtime::workspace_bytes and allocate as much");
  check_pointers(executor, plan.forward, pattern);
  executor.check_pointer(call.dout.data, "dout");
  if (call.dlse)
    executor.check_pointer(call.dlse->data, "dlse");
  executor.check_pointer(call.dq.data, "dq");
  executor.check_pointer(call.dk.data, "dk");
  executor.check_pointer(call.dv.data, "dv");
  executor.check_pointer(call.workspace, "workspace");
  if (call.transposed) {
    executor.check_pointer(call.transposed->offsets.data, "offsets");
    executor.check_pointer(call.transposed->query_indices.data, "query_indices");
  }
  if (const auto* lists = std::get_if<BlockList>(&pattern); lists != nullptr && lists->validate_lists)
    check_lists(executor, *lists, plan.shape, stream);
  for (const Problem& step : backward_steps(problem_of_checked(plan.forward, pattern, plan.shape)))
    plan.steps.push_back(prepare(step));
  if (plan.workspace.transposed && !call.transposed) {
    check_transpose(*plan.workspace.transposed);
    plan.transpose = prepare(parse_problem("transpose_lists:"));
  }
  return plan;
}

void launch_backward(Executor& executor, const BackwardPlan& plan, const TileShares& shares, Stream stream) {
  if (plan.transpose)
    launch_transpose(executor, *plan.transpose->kernel, plan.transpose->spec, *plan.workspace.transposed, stream);
  for (const Prepared& step : plan.steps)
    launch_backward(executor, *step.kernel, plan.call, {plan.forward, plan.pattern, plan.shape, step.spec},
                    plan.workspace, shares, stream);
}

} // namespace operators

Problem Runtime::problem_of(const AttentionBackward& call, const Pattern& pattern) {
  return operators::problem_of_checked(operators::forward_call(call), pattern,
                                       operators::check_backward(call, pattern));
}

std::size_t Runtime::workspace_bytes(const AttentionBackward& call, const Pattern& pattern) {
  return operators::lay_out(call, operators::check_backward(call, pattern), pattern).bytes;
}

void Runtime::prepare_backward(const Problem& forward) {
  for (const Problem& step : backward_steps(forward))
    prepare(step);
  if (forward.pattern == PatternKind::block_list)
    prepare(parse_problem("transpose_lists:"));
}

void Runtime::attention_backward(const AttentionBackward& call, const Pattern& pattern, Stream stream) {
  const auto prepare = [&](const Problem& problem) { return state_->prepared(problem, stream); };
  Executor& executor = *state_->executor;
  operators::launch_backward(executor, operators::plan_backward(executor, call, pattern, prepare, stream), {}, stream);
}

} // namespace tilewright
