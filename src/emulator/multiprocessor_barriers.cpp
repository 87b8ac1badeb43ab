// Barriers in shared memory.
#include <cstring>

#include <fmt/format.h>

#include "emulator/multiprocessor.hpp"

namespace tilewright::emulator {
namespace {

constexpr std::uint32_t barrier_bytes = 8;

/// What stands in a barrier's place in shared memory, to notice who writes over it.
std::uint64_t barrier_word(std::uint32_t address) { return mix(address); }

} // namespace

void Multiprocessor::initialize_barrier(Fiber& fiber, std::uint32_t address, int arrivals, Place place) {
  unsigned char* const memory = shared_at(fiber, address, barrier_bytes, Access::write, place);
  if (arrivals < 1 || arrivals > SharedBarrier::most)
    throw fault(fiber, place, fmt::format("initialises a barrier for {} arrivals", arrivals),
                fmt::format("1 to {} arrivals", SharedBarrier::most));
  if (!fiber.thread_block->barriers.try_emplace(address, arrivals).second)
    throw fault(fiber, place, fmt::format("initialises the barrier at shared address {} again", address),
                "a barrier is initialised once");
  const std::uint64_t word = barrier_word(address);
  std::memcpy(memory, &word, sizeof word);
}

void Multiprocessor::publish_barriers(Fiber& fiber) {
  for (auto& [address, barrier] : fiber.thread_block->barriers)
    barrier.published = true;
}

SharedBarrier& Multiprocessor::barrier_at(const Fiber& by, ThreadBlock& block, std::uint32_t address, Place place) {
  const auto found = block.barriers.find(address);
  if (found == block.barriers.end())
    throw fault(by, place, fmt::format("uses a barrier at shared address {} of block {}", address, block.index),
                "no barrier has been initialised there yet");
  if (block.rank != by.rank && block.unfinished == 0)
    throw fault(by, place, fmt::format("uses the barrier at shared address {} of block {}", address, block.index),
                "that thread block has ended, and its shared memory with it");
  if (block.rank != by.rank && !found->second.published)
    throw fault(by, place, fmt::format("uses the barrier at shared address {} of block {}", address, block.index),
                "that thread block has not published it (publish_barriers)");
  std::uint64_t word = 0;
  std::memcpy(&word, block.shared.get() + (address - shared_base), sizeof word);
  if (word != barrier_word(address))
    throw fault(by, place, fmt::format("uses the barrier at shared address {} of block {}", address, block.index),
                "something has been written over it");
  if (plan_->check_races)
    refuse_race(by, place, races_.look(by.number, block.rank, address - shared_base), "uses the barrier at", address);
  return found->second;
}

void Multiprocessor::arrive(Fiber& fiber, std::uint32_t address, int rank, int count, int bytes, Place place) {
  if (rank >= static_cast<int>(plan_->cluster))
    throw fault(fiber, place, fmt::format("arrives in thread block {} of the cluster", rank),
                fmt::format("the cluster has {} thread blocks", plan_->cluster));
  ThreadBlock& block = rank < 0 ? *fiber.thread_block : blocks_[static_cast<std::size_t>(rank)];
  SharedBarrier& barrier = barrier_at(fiber, block, address, place);
  if (count < 1 || count > barrier.missing_arrivals())
    throw fault(fiber, place, fmt::format("arrives {} times at the barrier at shared address {}", count, address),
                fmt::format("its phase {} lacks {} arrivals", barrier.phase(), barrier.missing_arrivals()));
  barrier.announce(bytes);
  if (bytes < 0 || barrier.missing_bytes() > SharedBarrier::most)
    throw fault(fiber, place, fmt::format("announces {} bytes to the barrier at shared address {}", bytes, address),
                fmt::format("0 to {} bytes in a phase", SharedBarrier::most));
  if (count == barrier.missing_arrivals() && barrier.missing_bytes() < 0)
    throw fault(
        fiber, place,
        fmt::format("is the last to arrive at the barrier at shared address {} in phase {}", address, barrier.phase()),
        fmt::format("{} bytes more have been copied than were announced", -barrier.missing_bytes()));
  if (plan_->check_races)
    races_.arrive(fiber.number, block.rank, address, rank < 0 ? Ordered::all : Ordered::reads);
  if (barrier.arrive(count)) {
    if (plan_->check_races)
      races_.complete(block.rank, address, barrier.phase());
    release_all(barrier.waiting);
  }
  perhaps_progress();
  scheduler_.yield(fiber);
}

void Multiprocessor::wait_for_phase(Fiber& fiber, std::uint32_t address, std::uint32_t parity, Place place) {
  if (parity > 1)
    throw fault(fiber, place, fmt::format("waits for parity {}", parity), "a parity is 0 or 1");
  perhaps_progress();
  scheduler_.yield(fiber);
  // Whoever is woken looks again, as the hardware's loop does: by then yet another phase may have completed.
  for (;;) {
    SharedBarrier& barrier = barrier_at(fiber, *fiber.thread_block, address, place);
    if (barrier.passed(parity)) {
      if (plan_->check_races)
        races_.acquire(fiber.number, fiber.rank, address);
      return;
    }
    barrier.waiting.push_back(&fiber);
    scheduler_.wait(fiber, {"wait", place, address, parity, Wait::shared_barrier});
  }
}

bool Multiprocessor::has_passed(Fiber& fiber, std::uint32_t address, std::uint32_t parity, Place place) {
  if (parity > 1)
    throw fault(fiber, place, fmt::format("looks for parity {}", parity), "a parity is 0 or 1");
  perhaps_progress();
  scheduler_.yield(fiber);
  const bool passed = barrier_at(fiber, *fiber.thread_block, address, place).passed(parity);
  if (passed && plan_->check_races)
    races_.acquire(fiber.number, fiber.rank, address);
  return passed;
}

} // namespace tilewright::emulator
