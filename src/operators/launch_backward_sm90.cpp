#include "operators/launch_backward_sm90.hpp"

#include <algorithm>
#include <cmath>
#include <limits>

#include <fmt/format.h>

#include "operators/launch.hpp"
#include "operators/tensor_maps.hpp"
#include "schedule/feasibility.hpp"
#include "schedule/hopper_backward.hpp"
#include <tilewright/error.hpp>

namespace tilewright::operators {
namespace {

/// The blocks that a kernel owns, per head, and how they are dealt out.
struct Dealt {
  WorkParameters work;
  std::int32_t blocks;
  std::int64_t items;
};

Dealt deal(const Spec& spec, const AttentionParameters& p, std::int32_t batch, double mean_window) {
  const bool of_keys = spec.problem.op == Operator::attention_backward_key;
  const std::int32_t owned = schedule::hopper_backward::owned_rows(spec.problem, spec.schedule);
  const auto tiles = [](const TokenGrid& grid) { return std::int64_t{grid.tiles_t} * grid.tiles_h * grid.tiles_w; };
  const TokenGrid& own = of_keys ? p.key_grid : p.query_grid;
  const TokenGrid& walked = of_keys ? p.query_grid : p.key_grid;
  const std::int64_t tile = spec.problem.pattern == PatternKind::dense
                                ? owned
                                : (of_keys ? spec.problem.key_tile : spec.problem.tile).volume();
  const std::int32_t in_item =
      schedule::hopper_backward::is_merged(spec.problem, spec.schedule) ? spec.schedule.consumers : 1;
  Dealt dealt{};
  dealt.work.heads = batch * (of_keys ? p.heads / p.heads_per_kv_head : p.heads);
  dealt.work.video_blocks = static_cast<std::int32_t>(tiles(own) * (tile / owned));
  dealt.work.video_items = ceiling_divide(dealt.work.video_blocks, in_item);
  const std::int32_t text_blocks = spec.problem.text == Text::present ? ceiling_divide(p.text_rows, owned) : 0;
  dealt.work.text_items = ceiling_divide(text_blocks, in_item);
  dealt.work.text_rounds =
      static_cast<std::int32_t>(std::max(std::lround(static_cast<double>(tiles(walked)) / mean_window), 1L));
  dealt.blocks = dealt.work.video_blocks + text_blocks;
  dealt.items = std::int64_t{dealt.work.heads} * (dealt.work.video_items + dealt.work.text_items);
  return dealt;
}

BackwardTensorMaps encode(Executor& executor, const BackwardMapRequests& requests) {
  BackwardTensorMaps maps{};
  for (int which = 0; which < 2; ++which) {
    maps.own[which] = executor.encode(requests.own[which]);
    maps.walked[which] = executor.encode(requests.walked[which]);
    if (which < requests.gradients)
      maps.gradient[which] = executor.encode(requests.gradient[which]);
  }
  return maps;
}

} // namespace

template <class PatternParameters>
void launch_backward_sm90(Executor& executor, const Kernel& kernel, const Spec& spec,
                          AttentionBackwardArguments<PatternParameters> arguments, std::int32_t batch,
                          double mean_window, Stream stream) {
  AttentionParameters& p = arguments.call.attention;
  const Dealt dealt = deal(spec, p, batch, mean_window);
  if (dealt.items > std::numeric_limits<std::int32_t>::max())
    throw Error(ErrorCode::unsupported, fmt::format("the call has {} items of work", dealt.items),
                "fewer than 2^31 items in one launch", "split the batch");
  (spec.problem.op == Operator::attention_backward_key ? arguments.backward.key_blocks : p.query_blocks) = dealt.blocks;

  const MappedBackwardTensors maps = map_backward_tensors(spec, p, arguments.backward, batch);
  MappedBackwardArguments<PatternParameters> mapped{};
  mapped.video = encode(executor, maps.video);
  if (maps.text)
    mapped.text = encode(executor, *maps.text);
  for (int which = 0; which < 2; ++which) {
    mapped.own_heads[which] = maps.own_heads[which];
    mapped.walked_heads[which] = maps.walked_heads[which];
    mapped.gradient_heads[which] = maps.gradient_heads[which];
  }
  mapped.work = dealt.work;
  mapped.backward = arguments;

  // One thread block an item, not one that stays and takes several: items take different times (lists of different
  // lengths, clipped tiles, multiprocessors near and far from memory), and the hardware hands the next one to whoever
  // is done. Measured on an H100, one process after the other: 0.4 to 3 % of the whole pass.
  LaunchShape shape;
  shape.grid.x = static_cast<std::uint32_t>(dealt.items);
  shape.block.x = (1u + spec.schedule.consumers) * warpgroup_size;
  shape.shared_bytes = static_cast<std::uint32_t>(schedule::shared_memory_bytes(spec.problem, spec.schedule));
  executor.launch(kernel, shape, &mapped, sizeof(mapped), stream);
}

template void launch_backward_sm90(Executor&, const Kernel&, const Spec&, AttentionBackwardArguments<DenseParameters>,
                                   std::int32_t, double, Stream);
template void launch_backward_sm90(Executor&, const Kernel&, const Spec&,
                                   AttentionBackwardArguments<SlidingTileParameters>, std::int32_t, double, Stream);
template void launch_backward_sm90(Executor&, const Kernel&, const Spec&,
                                   AttentionBackwardArguments<BlockListParameters>, std::int32_t, double, Stream);

} // namespace tilewright::operators
