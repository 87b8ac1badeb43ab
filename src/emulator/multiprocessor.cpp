#include "emulator/multiprocessor.hpp"

#include <cstring>
#include <utility>

#include <fmt/format.h>

#include "emulator/services.hpp"

namespace tilewright::emulator {
namespace {

// All bits set is a NaN in bf16, fp16 and float32, and an index out of every range.
constexpr int poison = 0xff;

} // namespace

Multiprocessor::Multiprocessor(std::size_t threads)
    : scheduler_(threads), copies_(threads), outgoing_(threads), products_(threads / warp_lanes),
      warpgroups_(threads / warp_lanes) {
  for (std::size_t number = 0; number < threads; ++number) {
    Fiber& fiber = scheduler_.fiber(number);
    fiber.processor = this;
    fiber.services = &services;
  }
}

void Multiprocessor::run(const LaunchPlan& plan, std::uint32_t cluster) {
  plan_ = &plan;
  scheduler_.begin(mix(plan.seed) ^ mix(cluster), plan.cluster, plan.threads_per_block);
  blocks_.resize(plan.cluster);
  boxes_.clear();
  at_cluster_barrier_.clear();
  unfinished_ = std::size_t{plan.cluster} * plan.threads_per_block;
  for (std::uint32_t rank = 0; rank < plan.cluster; ++rank)
    begin_block(blocks_[rank], cluster * plan.cluster + rank, rank);
  if (plan.check_races)
    races_.begin(unfinished_, plan.cluster, plan.shared_bytes);
  scheduler_.run(*this);
}

void Multiprocessor::begin_block(ThreadBlock& block, std::uint32_t index, std::uint32_t rank) {
  if (block.shared == nullptr || block.shared_bytes != plan_->shared_bytes) {
    // Exact, so that the address sanitizer sees its end.
    block.shared.reset(static_cast<unsigned char*>(::operator new(plan_->shared_bytes, shared_alignment)));
    block.shared_bytes = plan_->shared_bytes;
  }
  std::memset(block.shared.get(), plan_->check_initialised ? poison : 0, plan_->shared_bytes);
  block.index = index;
  block.rank = rank;
  block.unfinished = plan_->threads_per_block;
  block.at_barrier.clear();
  block.barriers.clear();
  block.numbered = {};
  block.unfenced.begin(plan_->copy_engine ? plan_->shared_bytes : 0, plan_->threads_per_block);
  block.free_registers = 0;
  block.warp_registers.assign(plan_->threads_per_block / warp_lanes, plan_->registers);
  block.waiting_for_registers.clear();
  for (std::size_t index_in_block = 0; index_in_block < plan_->threads_per_block; ++index_in_block) {
    Fiber& fiber = scheduler_.fiber(std::size_t{rank} * plan_->threads_per_block + index_in_block);
    fiber.thread_block = &block;
    fiber.shared = block.shared.get();
    fiber.shared_bytes = plan_->shared_bytes;
    fiber.watched = plan_->copy_engine || plan_->check_races;
    fiber.rank = static_cast<std::uint8_t>(rank);
    fiber.block = static_cast<std::int32_t>(index);
    fiber.grid = static_cast<std::int32_t>(plan_->blocks);
    copies_[fiber.number].clear();
    outgoing_[fiber.number] = {};
    products_[fiber.warp->number].begin();
    fiber.warp->exchange.bytes_loaded = fiber.warp->exchange.bytes_stored = 0;
    warpgroups_[fiber.warp->number / 4] = {};
  }
}

void Multiprocessor::run(Fiber& /*fiber*/) { plan_->entry(plan_->arguments); }

void Multiprocessor::finished(Fiber& fiber) {
  const Place end{"the thread's end", 0};
  copies_[fiber.number].finish();
  if (!outgoing_[fiber.number].boxes.empty())
    throw fault(fiber, end, "has copied boxes to global memory and not waited for them",
                "a thread block's shared memory must stay until its boxes have been read");
  if (!products_[fiber.warp->number].empty())
    throw fault(fiber, end, "has issued products and not waited for them", "a thread must wait for its products");
  counters_.bytes_loaded += std::exchange(fiber.warp->exchange.bytes_loaded, 0);
  counters_.bytes_stored += std::exchange(fiber.warp->exchange.bytes_stored, 0);
  ThreadBlock& block = *fiber.thread_block;
  --block.unfinished;
  --unfinished_;
  if (block.unfinished == 0)
    for (const PendingBox& box : boxes_)
      if (box.destination == &block)
        throw fault(*box.issuer, box.place,
                    fmt::format("the box is still on its way when block {} has ended", block.index),
                    "a thread block's shared memory must stay until all copies into it have come");
  release_block_barrier(block);
  release_cluster_barrier();
}

void Multiprocessor::release_all(std::vector<Fiber*>& waiting) {
  for (Fiber* const fiber : waiting)
    scheduler_.wake(*fiber);
  waiting.clear();
}

void Multiprocessor::synchronize_block(Fiber& fiber, Place place) {
  ThreadBlock& block = *fiber.thread_block;
  block.at_barrier.push_back(&fiber);
  if (block.at_barrier.size() < block.unfinished) {
    scheduler_.wait(fiber, {"synchronize_block", place});
    return;
  }
  release_block_barrier(block);
  scheduler_.yield(fiber);
}

/// Threads that have finished are not waited for (CUDA C++ Programming Guide, __syncthreads; PTX ISA, barrier.cluster).
void Multiprocessor::release_block_barrier(ThreadBlock& block) {
  if (block.at_barrier.size() != block.unfinished)
    return;
  meet(block.at_barrier);
  release_all(block.at_barrier);
}

void Multiprocessor::synchronize_cluster(Fiber& fiber, Place place) {
  at_cluster_barrier_.push_back(&fiber);
  if (at_cluster_barrier_.size() < unfinished_) {
    scheduler_.wait(fiber, {"synchronize_cluster", place});
    return;
  }
  release_cluster_barrier();
  scheduler_.yield(fiber);
}

void Multiprocessor::release_cluster_barrier() {
  if (at_cluster_barrier_.size() != unfinished_)
    return;
  meet(at_cluster_barrier_);
  release_all(at_cluster_barrier_);
}

bool Multiprocessor::meet_threads(Fiber& fiber, int id, int threads, bool condition, Place place) {
  if (id < 1 || id >= ThreadBlock::numbered_barriers || threads < warp_lanes || threads % warp_lanes != 0 ||
      static_cast<std::uint32_t>(threads) > plan_->threads_per_block)
    throw fault(fiber, place, fmt::format("meets {} threads at barrier {}", threads, id),
                "whole warps of the thread block at barriers 1 to 15");
  NumberedBarrier& barrier = fiber.thread_block->numbered[static_cast<std::size_t>(id)];
  if (barrier.waiting.empty())
    barrier.expected = threads;
  else if (barrier.expected != threads)
    throw fault(
        fiber, place,
        fmt::format("comes to barrier {} for {} threads, where others wait for {}", id, threads, barrier.expected),
        "all threads that meet at a barrier must name the same number");
  barrier.any = barrier.any || condition;
  barrier.waiting.push_back(&fiber);
  if (static_cast<int>(barrier.waiting.size()) < threads) {
    scheduler_.wait(fiber, {"synchronize_threads", place, static_cast<std::uint32_t>(id), 0, Wait::numbered_barrier});
    return fiber.agreed;
  }
  for (Fiber* const waiting : barrier.waiting)
    waiting->agreed = barrier.any;
  barrier.any = false;
  meet(barrier.waiting);
  release_all(barrier.waiting);
  scheduler_.yield(fiber);
  return fiber.agreed;
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
  check_bounds(fiber, destination, asynchronous_copy_bytes, Access::write, place);
  unsigned char* const memory = fiber.shared + (destination - shared_base);
  if (plan_->check_races)
    refuse_race(fiber, place,
                races_.start_write(RaceDetector::Kind::copies, fiber.number, fiber.number, fiber.rank,
                                   destination - shared_base, asynchronous_copy_bytes, place),
                "copies to", destination);
  counters_.bytes_to_shared += asynchronous_copy_bytes;
  if (valid && reinterpret_cast<std::uintptr_t>(source) % asynchronous_copy_bytes != 0)
    check_global(fiber, source, asynchronous_copy_bytes, Access::read, place);
  copies_[fiber.number].add(memory, valid ? source : nullptr, completes_at_once());
}

void Multiprocessor::commit_copies(Fiber& fiber) {
  copies_[fiber.number].commit();
  if (plan_->check_races)
    races_.close_group(RaceDetector::Kind::copies, fiber.number);
}

void Multiprocessor::wait_for_copies(Fiber& fiber, int pending) {
  copies_[fiber.number].wait(static_cast<std::uint64_t>(pending));
  if (plan_->check_races)
    races_.wait_for_groups(RaceDetector::Kind::copies, fiber.number, fiber.number, static_cast<std::uint32_t>(pending));
}

void Multiprocessor::check_bounds(const Fiber& fiber, std::uint32_t address, std::uint32_t bytes, Access access,
                                  Place place) const {
  const char* const verb = access == Access::read ? "reads" : "writes";
  if (address % bytes != 0)
    throw fault(fiber, place, fmt::format("{} {} bytes at shared address {}", verb, bytes, address),
                fmt::format("the address must be a multiple of {}", bytes));
  if (std::uint64_t{address - shared_base} + bytes > fiber.shared_bytes)
    throw fault(fiber, place, fmt::format("{} {} bytes at shared address {}", verb, bytes, address),
                fmt::format("the thread block has the {} bytes from {} on", fiber.shared_bytes, shared_base));
}

void Multiprocessor::check_shared(Fiber& fiber, std::uint32_t address, std::uint32_t bytes, Access access,
                                  Place place) {
  check_bounds(fiber, address, bytes, access, place);
  const std::uint32_t offset = address - shared_base;
  if (plan_->check_races)
    refuse_race(fiber, place,
                access == Access::read
                    ? races_.read(fiber.number, fiber.rank, offset, bytes, place)
                    : races_.write(fiber.number, fiber.rank, offset, bytes, access != Access::write_equal, place),
                access == Access::read ? "reads" : "writes", address);
  if (plan_->copy_engine && access != Access::read)
    fiber.thread_block->unfenced.store(static_cast<std::size_t>(fiber.index), offset, bytes);
}

void Multiprocessor::check_global(Fiber& fiber, const void* address, std::uint32_t bytes, Access access, Place place) {
  if (reinterpret_cast<std::uintptr_t>(address) % bytes != 0)
    throw fault(fiber, place,
                fmt::format("{} {} bytes at global address {}", access == Access::read ? "reads" : "writes", bytes,
                            fmt::ptr(address)),
                fmt::format("the address must be a multiple of {}", bytes));
  if (access != Access::read)
    note_global_store(fiber, address, bytes, place);
}

void Multiprocessor::set_registers(Fiber& fiber, int registers, Place place) {
  ThreadBlock& block = *fiber.thread_block;
  const auto wanted = static_cast<std::uint32_t>(registers);
  std::uint32_t& current = block.warp_registers[static_cast<std::size_t>(fiber.index) / warp_lanes];
  const bool release = fiber.warp->operation == WarpOperation::release_registers;
  if (release ? wanted > current : wanted < current)
    throw fault(fiber, place, fmt::format("{} {} registers", release ? "releases all but" : "claims", registers),
                fmt::format("the warp has {} registers per thread", current));
  const std::int64_t more = (std::int64_t{wanted} - current) * warp_lanes;
  while (block.free_registers < more) {
    block.waiting_for_registers.push_back(&fiber);
    scheduler_.wait(fiber, {"claim_registers", place});
  }
  block.free_registers -= more;
  current = wanted;
  release_all(block.waiting_for_registers);
}

} // namespace tilewright::emulator
