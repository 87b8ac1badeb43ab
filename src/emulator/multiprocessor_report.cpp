// What is said when a kernel goes wrong.
#include <map>
#include <tuple>

#include <fmt/format.h>

#include "emulator/multiprocessor.hpp"

namespace tilewright::emulator {

Error Multiprocessor::fault(const Fiber& fiber, Place place, std::string_view what, std::string allowed) const {
  return Error(ErrorCode::internal,
               fmt::format("{}: thread {} (warp {}, lane {}) of block {} at {}: {}", plan_->kernel, fiber.index,
                           fiber.index / warp_lanes, fiber.index % warp_lanes, fiber.block, to_string(place), what),
               std::move(allowed), replay());
}

void Multiprocessor::refuse_divergence(const Fiber& fiber, WarpOperation operation, Place place) const {
  const Warp& warp = *fiber.warp;
  throw fault(fiber, place,
              fmt::format("{} is called while lanes {} of the warp are at {} ({})", to_string(operation),
                          lanes_to_string(warp.arrived), to_string(warp.operation), to_string(warp.place)),
              "all lanes of a warp must come to the same operation");
}

std::string Multiprocessor::replay() const {
  return fmt::format("the kernel or its schedule is at fault; emulating with seed {} replays this", plan_->seed);
}

std::string Multiprocessor::describe_wait(const Fiber& fiber) const {
  if (fiber.finished)
    return "have finished";
  const bool at_warp = fiber.wait.what == nullptr;
  const Wait wait = at_warp ? Wait{to_string(fiber.warp->operation), fiber.warp->place} : fiber.wait;
  std::string text = fmt::format("wait at {} ({})", wait.what, to_string(wait.place));
  const ThreadBlock& block = *fiber.thread_block;
  if (wait.kind == Wait::shared_barrier && block.barriers.contains(wait.subject)) {
    const SharedBarrier& barrier = block.barriers.at(wait.subject);
    text +=
        fmt::format(" for parity {} of the barrier at shared address {}, whose phase {} lacks {} arrivals and {} "
                    "bytes",
                    wait.parity, wait.subject, barrier.phase(), barrier.missing_arrivals(), barrier.missing_bytes());
  } else if (wait.kind == Wait::numbered_barrier) {
    const NumberedBarrier& barrier = block.numbered[wait.subject];
    text += fmt::format(" at barrier {}, where {} of {} threads are", wait.subject, barrier.waiting.size(),
                        barrier.expected);
  }
  return text;
}

std::exception_ptr Multiprocessor::deadlock() {
  // Lanes of a warp that wait for the same thing at the same place are named together.
  std::map<std::tuple<std::int32_t, std::int32_t, std::string>, std::uint32_t> waiting;
  for (const ThreadBlock& block : blocks_)
    for (std::size_t index = 0; index < plan_->threads_per_block; ++index) {
      const Fiber& fiber = scheduler_.fiber(std::size_t{block.rank} * plan_->threads_per_block + index);
      waiting[{fiber.block, fiber.index / warp_lanes, describe_wait(fiber)}] |= fiber.lane_bit();
    }
  std::string text;
  for (const auto& [who, lanes] : waiting) {
    const auto& [block, warp, what] = who;
    text += fmt::format("{}block {} warp {} lanes {} {}", text.empty() ? "" : ", ", block, warp, lanes_to_string(lanes),
                        what);
  }
  return std::make_exception_ptr(Error(ErrorCode::internal, fmt::format("{}: deadlock: {}", plan_->kernel, text),
                                       "every wait must end", replay()));
}

} // namespace tilewright::emulator
