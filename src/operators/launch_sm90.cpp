#include <algorithm>
#include <limits>

#include <fmt/format.h>

#include "operators/launch.hpp"
#include "operators/tensor_maps.hpp"
#include <tilewright/error.hpp>

namespace tilewright::operators {
namespace {

TensorMaps encode(Executor& executor, const MapRequests& requests) {
  return {executor.encode(requests.query), executor.encode(requests.key), executor.encode(requests.value),
          executor.encode(requests.output)};
}

} // namespace

double mean_window(const LaunchRequest& request, const TokenGrid& grid) {
  const auto* sliding = std::get_if<SlidingTile>(&request.pattern);
  if (sliding == nullptr)
    return 1; // no text
  const auto width = [](std::int32_t window, std::int32_t tiles) { return std::min(window / 2 * 2 + 1, tiles); };
  double sum = 0;
  for (const Window& window : sliding->windows)
    sum += static_cast<double>(width(window.t, grid.tiles_t)) * width(window.h, grid.tiles_h) *
           width(window.w, grid.tiles_w);
  return sum / static_cast<double>(sliding->windows.size());
}

void launch_sm90(Executor& executor, const Kernel& kernel, const LaunchRequest& request, Stream stream) {
  const auto& [call, any_pattern, shape, spec] = request;
  const auto batch = static_cast<std::int32_t>(shape.batch);
  AttentionParameters p = attention_parameters(request, spec.schedule.block_q, spec.schedule.block_k);
  const DealtWork work = deal_work(spec, p, batch, mean_window(request, p.key_grid));
  if (work.items > std::numeric_limits<std::int32_t>::max())
    throw Error(ErrorCode::unsupported, fmt::format("the call has {} items of work", work.items),
                "fewer than 2^31 items in one launch", "split the batch");
  p.query_blocks = work.query_blocks;
  const MappedTensors maps = map_tensors(spec, p, batch);
  const LaunchShape launch_shape = hopper_launch_shape(spec, work, executor.device().multiprocessors);
  std::visit(
      [&](const auto& pattern) {
        MappedAttentionArguments<decltype(pattern_parameters(request, pattern))> arguments{};
        arguments.video = encode(executor, maps.video);
        if (maps.text)
          arguments.text = encode(executor, *maps.text);
        arguments.query_heads = maps.query_heads;
        arguments.key_heads = maps.key_heads;
        arguments.value_heads = maps.value_heads;
        arguments.output_heads = maps.output_heads;
        arguments.work = work.work;
        arguments.call = {p, pattern_parameters(request, pattern)};
        executor.launch(kernel, launch_shape, &arguments, sizeof(arguments), stream);
      },
      any_pattern);
}

} // namespace tilewright::operators
