// What runs thread blocks: their shared memory, barriers, asynchronous copies and products, around a scheduler of
// fibers. The emulated kernels call it through Services.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "emulator/copy_queue.hpp"
#include "emulator/launch_plan.hpp"
#include "emulator/names.hpp"
#include "emulator/product_queue.hpp"
#include "emulator/race_detector.hpp"
#include "emulator/scheduler.hpp"
#include "emulator/tensor_map.hpp"
#include "emulator/thread_block.hpp"
#include <tilewright/error.hpp>

namespace tilewright::emulator {

/// A box, or bytes that follow each other, on their way to the shared memory of one thread block.
struct PendingBox {
  BoxMap map;
  BoxRequest request;
  ThreadBlock* destination;
  const Fiber* issuer;
  Place place;
  const void* plain = nullptr; // bytes: where they come from; then there is no map
  std::uint32_t plain_bytes = 0;

  [[nodiscard]] std::uint32_t bytes() const noexcept { return plain != nullptr ? plain_bytes : map.box_bytes(); }
};

/// Boxes on their way from shared to global memory, of one thread.
struct OutgoingBoxes {
  struct Box {
    BoxMap map;
    BoxRequest request;
    std::uint64_t group;
    bool done;
  };
  std::vector<Box> boxes = {}; // until they are waited for
  std::uint64_t open_group = 0;
};

/// The products that the warps of one warpgroup have issued and not all of them have: they must be the same.
struct WarpgroupProducts {
  std::vector<std::uint64_t> issued = {};
  std::size_t count[4] = {}; // by warp
};

/// Runs one cluster of thread blocks at a time on the calling host thread. Reusable; not thread-safe.
class Multiprocessor final : FiberWork {
public:
  explicit Multiprocessor(std::size_t threads);

  [[nodiscard]] std::size_t capacity() const noexcept { return scheduler_.capacity(); }

  /// Runs one cluster to its end. Which way it goes depends on the plan's seed and the cluster's index only.
  void run(const LaunchPlan& plan, std::uint32_t cluster);

  /// What has been counted since the last call.
  EmulatorCounters take_counters() noexcept { return std::exchange(counters_, {}); }

  // What kernels call: see Services. Each throws Error (internal) where the kernel is wrong.
  void meet_warp(Fiber& fiber, WarpOperation operation, WarpWork work, Place place);
  void synchronize_block(Fiber& fiber, Place place);
  void synchronize_cluster(Fiber& fiber, Place place);
  bool meet_threads(Fiber& fiber, int id, int threads, bool condition, Place place);
  void check_shared(Fiber& fiber, std::uint32_t address, std::uint32_t bytes, Access access, Place place);
  void check_bounds(const Fiber& fiber, std::uint32_t address, std::uint32_t bytes, Access access, Place place) const;
  void check_global(Fiber& fiber, const void* address, std::uint32_t bytes, Access access, Place place);
  void copy_async(Fiber& fiber, std::uint32_t destination, const void* source, bool valid, Place place);
  void commit_copies(Fiber& fiber);
  void wait_for_copies(Fiber& fiber, int pending);
  void initialize_barrier(Fiber& fiber, std::uint32_t address, int arrivals, Place place);
  void publish_barriers(Fiber& fiber);
  void arrive(Fiber& fiber, std::uint32_t address, int rank, int count, int bytes, Place place);
  void wait_for_phase(Fiber& fiber, std::uint32_t address, std::uint32_t parity, Place place);
  bool has_passed(Fiber& fiber, std::uint32_t address, std::uint32_t parity, Place place);
  void check_map(Fiber& fiber, const void* map, Place place);
  void copy_box_to_shared(Fiber& fiber, const BoxRequest& request, Place place);
  void copy_bytes_to_shared(Fiber& fiber, const BytesRequest& request, Place place);
  void copy_box_to_global(Fiber& fiber, const BoxRequest& request, Place place);
  void commit_box_copies(Fiber& fiber);
  void wait_for_boxes(Fiber& fiber, bool only_sources);
  void fence_shared(Fiber& fiber);
  void check_accumulator(Fiber& fiber, const float* registers, Place place);
  void set_registers(Fiber& fiber, int registers, Place place);
  void fence_products(Fiber& fiber);
  void issue_product(Fiber& fiber, const ProductRequest& request, Place place);
  void commit_products(Fiber& fiber);
  void wait_for_products(Fiber& fiber, int pending, Place place);

private:
  void run(Fiber& fiber) override;
  void finished(Fiber& fiber) override;
  bool progress() override;
  [[nodiscard]] std::exception_ptr deadlock() override;

  void begin_block(ThreadBlock& block, std::uint32_t index, std::uint32_t rank);
  void release_all(std::vector<Fiber*>& waiting);
  void meet(const std::vector<Fiber*>& fibers);
  void observe(const Fiber& fiber, WarpOperation operation);
  void refuse_race(const Fiber& fiber, Place place, const RaceDetector::Complaint& complaint, std::string_view what,
                   std::uint32_t address) const;
  void note_global_store(const Fiber& fiber, const void* address, std::uint32_t bytes, Place place) const;
  void release_block_barrier(ThreadBlock& block);
  void release_cluster_barrier();
  [[nodiscard]] bool completes_at_once();
  void perhaps_progress();

  SharedBarrier& barrier_at(const Fiber& by, ThreadBlock& block, std::uint32_t address, Place place);
  BoxMap map_of(const Fiber& fiber, const BoxRequest& request, Place place) const;
  void check_box_place(const Fiber& fiber, const ThreadBlock& block, const BoxRequest& request, std::uint32_t bytes,
                       Place place) const;
  void check_fenced(const Fiber& fiber, const ThreadBlock& block, std::uint32_t address, std::uint32_t bytes,
                    std::string_view what, Place place) const;
  void bring(const PendingBox& box);
  void check_operands(const Fiber& fiber, const ProductRequest& request, Place place);
  void check_agreement(const Fiber& fiber, const ProductRequest& request, Place place);

  [[nodiscard]] Error fault(const Fiber& fiber, Place place, std::string_view what, std::string allowed) const;
  [[noreturn]] void refuse_divergence(const Fiber& fiber, WarpOperation operation, Place place) const;
  [[nodiscard]] std::string replay() const;
  [[nodiscard]] std::string describe_wait(const Fiber& fiber) const;

  Scheduler scheduler_;
  const LaunchPlan* plan_ = nullptr;
  std::vector<ThreadBlock> blocks_; // of the cluster
  std::size_t unfinished_ = 0;      // threads of the cluster
  std::vector<Fiber*> at_cluster_barrier_;
  std::vector<CopyQueue> copies_;       // by fiber
  std::vector<OutgoingBoxes> outgoing_; // by fiber
  std::vector<PendingBox> boxes_;       // to shared memory
  std::vector<ProductQueue> products_;  // by warp
  std::vector<WarpgroupProducts> warpgroups_;
  RaceDetector races_;
  std::vector<std::size_t> meeting_; // numbers of fibers; scratch
  EmulatorCounters counters_;
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
  if (warp.arrived != all_lanes) {
    scheduler_.wait_for_warp(fiber);
    return;
  }
  work(warp.exchange, place);
  observe(fiber, operation);
  warp.arrived = 0;
  warp.ready = all_lanes;
  if (!boxes_.empty())
    perhaps_progress();
  scheduler_.yield(fiber);
}

} // namespace tilewright::emulator
