#include <limits>

#include <fmt/format.h>

#include "operators/launch.hpp"
#include "schedule/feasibility.hpp"
#include <tilewright/error.hpp>

namespace tilewright::operators {

void launch_sm80(Executor& executor, const Kernel& kernel, const LaunchRequest& request, Stream stream) {
  const Schedule& schedule = request.spec.schedule;
  const std::int64_t blocks = request.shape.batch * request.shape.heads * query_blocks(request, schedule.block_q);
  if (blocks > std::numeric_limits<std::int32_t>::max())
    throw Error(ErrorCode::unsupported, fmt::format("the call needs {} thread blocks", blocks),
                "fewer than 2^31 thread blocks in one launch", "split the batch");
  LaunchShape shape;
  shape.grid.x = static_cast<std::uint32_t>(blocks);
  shape.block.x = schedule.warps * warp_size;
  shape.shared_bytes = static_cast<std::uint32_t>(schedule::shared_memory_bytes(request.spec.problem, schedule));
  std::visit(
      [&](const auto& pattern) {
        const AttentionArguments<decltype(pattern_parameters(request, pattern))> arguments{
            attention_parameters(request, schedule.block_q, schedule.block_k), pattern_parameters(request, pattern)};
        executor.launch(kernel, shape, &arguments, sizeof(arguments), stream);
      },
      request.pattern);
}

} // namespace tilewright::operators
