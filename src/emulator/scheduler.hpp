// Which emulated thread runs next: fibers of one host thread, in an order drawn from a seed.
#pragma once

#include <bit>
#include <cstdint>
#include <exception>
#include <utility>
#include <vector>

#include <boost/context/fiber.hpp>

#include "emulator/random.hpp"
#include "emulator/runtime.cuh"
#include "emulator/sanitizers.hpp"
#include "emulator/stacks.hpp"

namespace tilewright::emulator {

struct Warp;
struct ThreadBlock;
class Multiprocessor;

/// What a thread waits for, and where.
struct Wait {
  const char* what = nullptr; // a primitive's name
  Place place{};
  std::uint32_t subject = 0; // shared_barrier: its address; numbered_barrier: its number
  std::uint32_t parity = 0;  // shared_barrier: of the phase
  enum Kind : std::uint8_t { other, shared_barrier, numbered_barrier } kind = other;
};

/// One emulated CUDA thread. Stands at the low end of its stack.
struct Fiber : Thread {
  Warp* warp = nullptr;
  boost::context::fiber context; // where it goes on; empty while it runs. With what is above it one cache line
  Multiprocessor* processor = nullptr;
  ThreadBlock* thread_block = nullptr;
  std::size_t number = 0; // among all that its scheduler runs
  SanitizedStack stack{};
  Wait wait{}; // empty while it runs or waits for its warp
  bool started = false;
  bool finished = false;
  bool agreed = false; // what the last numbered barrier found

  [[nodiscard]] std::uint32_t lane_bit() const noexcept {
    return 1U << (static_cast<std::uint32_t>(index) % warp_lanes);
  }
};
static_assert(sizeof(Fiber) <= thread_bytes);

constexpr std::uint32_t all_lanes = ~0U;

/// 32 threads of one thread block.
struct Warp {
  std::uint32_t ready = 0;   // lanes that could run, and do not
  std::uint32_t arrived = 0; // at the warp operation
  WarpOperation operation{};
  Place place{}; // of that operation
  std::uint64_t priority = 0;
  std::size_t number = 0;      // among all of the scheduler
  std::size_t first_fiber = 0; // number of lane 0
  WarpExchange exchange{};
};

/// What a scheduler runs on each of its fibers.
class FiberWork {
public:
  virtual ~FiberWork() = default;
  virtual void run(Fiber& fiber) = 0;
  /// After run has returned, on the same fiber.
  virtual void finished(Fiber& fiber) = 0;
  /// All fibers wait: lets something that they may be waiting for take effect. False: there is no such thing.
  virtual bool progress() = 0;
  /// The error for fibers that all wait for ever.
  [[nodiscard]] virtual std::exception_ptr deadlock() = 0;
};

/// Runs the threads of one thread block (or cluster) to their ends, on the calling host thread. A fiber runs until it
/// waits; then a ready lane of its warp is drawn, or, where there is none, the ready warp of highest priority goes on.
/// Priorities are drawn anew now and then, more often in some blocks than in others, so that under some seeds a warp
/// runs far ahead or is left far behind (after Burckhardt et al. 2010, "A randomized scheduler with probabilistic
/// guarantees of finding bugs").
class Scheduler {
public:
  explicit Scheduler(std::size_t capacity);
  ~Scheduler();
  Scheduler(const Scheduler&) = delete;
  Scheduler& operator=(const Scheduler&) = delete;

  [[nodiscard]] std::size_t capacity() const noexcept { return stacks_.count(); }
  [[nodiscard]] Fiber& fiber(std::size_t number) const noexcept { return *static_cast<Fiber*>(stacks_.thread(number)); }
  [[nodiscard]] Random& random() noexcept { return random_; }

  /// Starts over with thread blocks of so many threads each, whole warps: gives every fiber its index and its warp.
  /// What else its Thread holds is for the caller to fill in.
  void begin(std::uint64_t seed, std::size_t blocks, std::size_t threads_per_block);

  /// Runs the work on every fiber. Throws what the first failing fiber threw; the others are unwound before.
  void run(FiberWork& work);

  /// Lets the calling fiber wait until wake().
  void wait(Fiber& fiber, Wait wait);
  /// The same; what it waits for stands in the warp.
  void wait_for_warp(Fiber& fiber);
  void wake(Fiber& fiber) noexcept { fiber.warp->ready |= fiber.lane_bit(); }

  /// Lets other fibers run, perhaps: at this point they could as well have come first.
  void yield(Fiber& fiber);

private:
  struct Abandoned {}; // unwinds the fibers that another one's failure has left waiting

  Fiber* pick_ready();
  Fiber* pick();
  Fiber* pick_or_fail();
  Warp* pick_warp();
  void draw_priority(Warp& warp) { warp.priority = random_.next(); }
  void create(std::size_t number);
  void enter(Fiber& fiber, boost::context::fiber&& from);
  void run_once(Fiber& fiber);
  void switch_to(Fiber* to, boost::context::fiber& from, SanitizedStack& from_stack);
  void unwind_others();

  Stacks stacks_;
  std::vector<Warp> warps_;
  std::size_t fiber_count_ = 0; // of this run
  std::size_t warp_count_ = 0;
  std::size_t unfinished_ = 0;
  Random random_{0};
  std::uint32_t redraw_period_ = 1; // yield draws a new priority once in so many times
  Warp* running_ = nullptr;
  FiberWork* work_ = nullptr;
  std::exception_ptr failure_;
  bool abandoning_ = false;
  bool closing_ = false;
  boost::context::fiber host_;
  SanitizedStack host_stack_;
  // Where the stack that was entered puts the one that was left.
  boost::context::fiber* left_ = nullptr;
  SanitizedStack* left_stack_ = nullptr;
};

// Inline, all of it: processors predict where a function returns to by who called it last, and a switch to another
// stack spoils that for every function on the way. A warp operation switches 32 times.

/// nullptr: all wait for ever.
inline Fiber* Scheduler::pick() {
  for (;;) {
    Fiber* const next = pick_ready();
    if (next != nullptr || !work_->progress())
      return next;
  }
}

inline Fiber* Scheduler::pick_ready() {
  if (running_ == nullptr || running_->ready == 0) {
    running_ = pick_warp();
    if (running_ == nullptr)
      return nullptr;
  }
  const auto turn = static_cast<int>(random_.below(warp_lanes));
  const auto lane = static_cast<std::uint32_t>(std::countr_zero(std::rotr(running_->ready, turn)) + turn) % warp_lanes;
  running_->ready &= ~(1U << lane);
  return &fiber(running_->first_fiber + lane);
}

/// to: nullptr is the host thread. Returns when somebody switches back.
inline void Scheduler::switch_to(Fiber* to, boost::context::fiber& from, SanitizedStack& from_stack) {
  left_ = &from;
  left_stack_ = &from_stack;
  leave_stack(from_stack, to == nullptr ? host_stack_ : to->stack);
  boost::context::fiber left = std::move(to == nullptr ? host_ : to->context).resume();
  enter_stack(from_stack, *left_stack_);
  *left_ = std::move(left);
}

inline void Scheduler::wait(Fiber& fiber, Wait wait) {
  fiber.wait = wait;
  wait_for_warp(fiber);
  fiber.wait = {};
}

inline void Scheduler::wait_for_warp(Fiber& fiber) {
  Fiber* const next = pick();
  if (next == &fiber)
    return;
  if (next == nullptr)
    std::rethrow_exception(work_->deadlock());
  switch_to(next, fiber.context, fiber.stack);
  if (abandoning_)
    throw Abandoned{};
}

inline void Scheduler::yield(Fiber& fiber) {
  wake(fiber);
  if (random_.one_in(redraw_period_)) {
    draw_priority(*running_);
    running_ = nullptr;
  }
  wait_for_warp(fiber);
}

} // namespace tilewright::emulator
