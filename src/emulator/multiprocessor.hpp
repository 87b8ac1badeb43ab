// What runs thread blocks: their shared memory, barriers and asynchronous copies, around a scheduler of fibers.
#pragma once

#include <cstdint>
#include <memory>
#include <new>
#include <string>
#include <string_view>
#include <vector>

#include "emulator/copy_queue.hpp"
#include "emulator/launch_plan.hpp"
#include "emulator/names.hpp"
#include "emulator/scheduler.hpp"
#include <tilewright/error.hpp>

namespace tilewright::emulator {

constexpr std::align_val_t shared_alignment{1024}; // the period of the 128-byte swizzle

struct FreeShared {
  void operator()(unsigned char* memory) const noexcept { ::operator delete(memory, shared_alignment); }
};

/// One thread block while it runs.
struct ThreadBlock {
  std::uint32_t index = 0; // in the grid
  std::unique_ptr<unsigned char, FreeShared> shared;
  std::size_t shared_capacity = 0;
  std::size_t unfinished = 0;          // threads
  std::vector<Fiber*> at_barrier = {}; // threads that wait at synchronize_block
};

/// Runs one thread block at a time on the calling host thread. Reusable; not thread-safe.
class Multiprocessor final : FiberWork {
public:
  explicit Multiprocessor(std::size_t threads);

  [[nodiscard]] std::size_t capacity() const noexcept { return scheduler_.capacity(); }

  /// Runs one thread block to its end. Which way it goes depends on the plan's seed and the block's index only.
  void run(const LaunchPlan& plan, std::uint32_t block);

  // What kernels call, through Services. Each throws Error (internal) where the kernel is wrong.
  void meet_warp(Fiber& fiber, WarpOperation operation, WarpWork work, Place place);
  void synchronize_block(Fiber& fiber, Place place);
  void copy_async(Fiber& fiber, std::uint32_t destination, const void* source, bool valid, Place place);
  void commit_copies(Fiber& fiber);
  void wait_for_copies(Fiber& fiber, int pending);
  void check_shared(Fiber& fiber, std::uint32_t address, std::uint32_t bytes, Access access, Place place);
  void check_global(Fiber& fiber, const void* address, std::uint32_t bytes, Access access, Place place);

private:
  void run(Fiber& fiber) override;
  void finished(Fiber& fiber) override;
  [[nodiscard]] std::exception_ptr deadlock() override;

  void begin_block(std::uint32_t index);
  void release_barrier(ThreadBlock& block);
  [[nodiscard]] bool completes_at_once();
  [[noreturn]] void refuse_divergence(const Fiber& fiber, WarpOperation operation, Place place) const;
  [[nodiscard]] Error fault(const Fiber& fiber, Place place, std::string_view what, std::string allowed) const;
  [[nodiscard]] std::string replay() const;

  Scheduler scheduler_;
  const LaunchPlan* plan_ = nullptr;
  ThreadBlock block_;
  std::vector<CopyQueue> copies_; // by fiber
};

inline void Multiprocessor::meet_warp(Fiber& fiber, WarpOperation operation, WarpWork work, Place place) {
  Warp& warp = *fiber.warp;
  if (warp.arrived == 0) {
    warp.operation = operation;
    warp.place = place;
  } else if (warp.operation != operation || warp.place.line != place.line) {
    refuse_divergence(fiber, operation, place);
  }
  warp.arrived |= fiber.lane_bit();
  if (warp.arrived != warp.lanes) {
    scheduler_.wait_for_warp(fiber);
    return;
  }
  work(warp.exchange, place);
  warp.arrived = 0;
  warp.ready |= warp.lanes;
  scheduler_.yield(fiber);
}

} // namespace tilewright::emulator
