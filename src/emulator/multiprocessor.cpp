#include "emulator/multiprocessor.hpp"

#include <cstring>
#include <map>
#include <tuple>

#include <fmt/format.h>
#include <fmt/ranges.h>

#include "emulator/names.hpp"
#include "emulator/services.hpp"

namespace tilewright::emulator {
namespace {

// All bits set is a NaN in bf16, fp16 and float32, and an index out of every range.
constexpr int poison = 0xff;

} // namespace

Multiprocessor::Multiprocessor(std::size_t threads) : scheduler_(threads), copies_(threads) {
  for (std::size_t number = 0; number < threads; ++number) {
    Fiber& fiber = scheduler_.fiber(number);
    fiber.processor = this;
    fiber.services = &services;
  }
}

void Multiprocessor::run(const LaunchPlan& plan, std::uint32_t block) {
  plan_ = &plan;
  scheduler_.begin(mix(plan.seed) ^ mix(block), 1, plan.threads_per_block);
  begin_block(block);
  scheduler_.run(*this);
}

void Multiprocessor::begin_block(std::uint32_t index) {
  if (block_.shared_capacity != plan_->shared_bytes) { // exact, so that the address sanitizer sees its end
    block_.shared.reset(static_cast<unsigned char*>(::operator new(plan_->shared_bytes, shared_alignment)));
    block_.shared_capacity = plan_->shared_bytes;
  }
  std::memset(block_.shared.get(), plan_->check_initialised ? poison : 0, plan_->shared_bytes);
  block_.index = index;
  block_.unfinished = plan_->threads_per_block;
  block_.at_barrier.clear();
  for (std::size_t number = 0; number < plan_->threads_per_block; ++number) {
    Fiber& fiber = scheduler_.fiber(number);
    fiber.shared = block_.shared.get();
    fiber.shared_bytes = plan_->shared_bytes;
    fiber.watched = false;
    fiber.block = static_cast<std::int32_t>(index);
    fiber.grid = static_cast<std::int32_t>(plan_->blocks);
    copies_[number].clear();
  }
}

void Multiprocessor::run(Fiber& /*fiber*/) { plan_->entry(plan_->arguments); }

void Multiprocessor::finished(Fiber& fiber) {
  copies_[fiber.number].finish();
  --block_.unfinished;
  release_barrier(block_);
}

void Multiprocessor::refuse_divergence(const Fiber& fiber, WarpOperation operation, Place place) const {
  const Warp& warp = *fiber.warp;
  throw fault(fiber, place,
              fmt::format("{} is called while lanes {} of the warp are at {} ({})", to_string(operation),
                          lanes_to_string(warp.arrived), to_string(warp.operation), to_string(warp.place)),
              "all lanes of a warp must come to the same operation");
}

void Multiprocessor::synchronize_block(Fiber& fiber, Place place) {
  block_.at_barrier.push_back(&fiber);
  if (block_.at_barrier.size() < block_.unfinished) {
    scheduler_.wait(fiber, {"synchronize_block", place});
    return;
  }
  release_barrier(block_);
  scheduler_.yield(fiber);
}

/// Threads that have finished are not waited for (CUDA C++ Programming Guide, __syncthreads).
void Multiprocessor::release_barrier(ThreadBlock& block) {
  if (block.at_barrier.empty() || block.at_barrier.size() < block.unfinished)
    return;
  for (Fiber* const fiber : block.at_barrier)
    scheduler_.wake(*fiber);
  block.at_barrier.clear();
}

bool Multiprocessor::completes_at_once() {
  switch (plan_->completion) {
  case Completion::earliest:
    return true;
  case Completion::latest:
    return false;
  case Completion::seeded:
    break;
  }
  return scheduler_.random().one_in(2);
}

void Multiprocessor::copy_async(Fiber& fiber, std::uint32_t destination, const void* source, bool valid, Place place) {
  unsigned char* const memory = shared_at(fiber, destination, asynchronous_copy_bytes, Access::write, place);
  if (valid && reinterpret_cast<std::uintptr_t>(source) % asynchronous_copy_bytes != 0)
    check_global(fiber, source, asynchronous_copy_bytes, Access::read, place);
  copies_[fiber.number].add(memory, valid ? source : nullptr, completes_at_once());
}

void Multiprocessor::commit_copies(Fiber& fiber) { copies_[fiber.number].commit(); }

void Multiprocessor::wait_for_copies(Fiber& fiber, int pending) {
  copies_[fiber.number].wait(static_cast<std::uint64_t>(pending));
}

void Multiprocessor::check_shared(Fiber& fiber, std::uint32_t address, std::uint32_t bytes, Access access,
                                  Place place) {
  const char* const verb = access == Access::read ? "reads" : "writes";
  if (address % bytes != 0)
    throw fault(fiber, place, fmt::format("{} {} bytes at shared address {}", verb, bytes, address),
                fmt::format("the address must be a multiple of {}", bytes));
  if (std::uint64_t{address - shared_base} + bytes > fiber.shared_bytes)
    throw fault(fiber, place, fmt::format("{} {} bytes at shared address {}", verb, bytes, address),
                fmt::format("the thread block has the {} bytes from {} on", fiber.shared_bytes, shared_base));
}

void Multiprocessor::check_global(Fiber& fiber, const void* address, std::uint32_t bytes, Access access, Place place) {
  if (reinterpret_cast<std::uintptr_t>(address) % bytes != 0)
    throw fault(fiber, place,
                fmt::format("{} {} bytes at global address {}", access == Access::read ? "reads" : "writes", bytes,
                            fmt::ptr(address)),
                fmt::format("the address must be a multiple of {}", bytes));
}

Error Multiprocessor::fault(const Fiber& fiber, Place place, std::string_view what, std::string allowed) const {
  return Error(ErrorCode::internal,
               fmt::format("{}: thread {} (warp {}, lane {}) of block {} at {}: {}", plan_->kernel, fiber.index,
                           fiber.index / warp_lanes, fiber.index % warp_lanes, fiber.block, to_string(place), what),
               std::move(allowed), replay());
}

std::string Multiprocessor::replay() const {
  return fmt::format("the kernel or its schedule is at fault; emulating with seed {} replays this", plan_->seed);
}

std::exception_ptr Multiprocessor::deadlock() {
  // Lanes of a warp that wait for the same thing at the same place are named together.
  std::map<std::tuple<std::int32_t, std::string, std::string>, std::uint32_t> waiting;
  for (std::size_t number = 0; number < plan_->threads_per_block; ++number) {
    const Fiber& fiber = scheduler_.fiber(number);
    const bool at_warp = (fiber.warp->arrived & fiber.lane_bit()) != 0;
    const Wait wait = at_warp ? Wait{to_string(fiber.warp->operation), fiber.warp->place} : fiber.wait;
    waiting[{fiber.index / warp_lanes, fiber.finished ? "" : wait.what, fiber.finished ? "" : to_string(wait.place)}] |=
        fiber.lane_bit();
  }
  std::string text;
  for (const auto& [who, lanes] : waiting) {
    const auto& [warp, what, place] = who;
    text += fmt::format("{}warp {} lanes {} {}", text.empty() ? "" : ", ", warp, lanes_to_string(lanes),
                        what.empty() ? "have finished" : fmt::format("wait at {} ({})", what, place));
  }
  return std::make_exception_ptr(Error(ErrorCode::internal,
                                       fmt::format("{}: deadlock in block {}: {}", plan_->kernel, block_.index, text),
                                       "every wait must end", replay()));
}

} // namespace tilewright::emulator
