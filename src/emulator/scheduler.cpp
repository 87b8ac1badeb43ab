#include "emulator/scheduler.hpp"

#include <algorithm>
#include <utility>

namespace tilewright::emulator {
namespace {

// yield draws a new priority once in so many times; each block has one of these.
constexpr std::uint32_t redraw_periods[] = {1, 4, 32, 512};

/// The stacks belong to the scheduler.
struct KeepsStack {
  static void deallocate(boost::context::stack_context&) noexcept {}
};

} // namespace

Scheduler::Scheduler(std::size_t capacity) : stacks_(capacity), warps_((capacity + warp_lanes - 1) / warp_lanes + 1) {
  for (std::size_t number = 0; number < capacity; ++number)
    create(number);
}

Scheduler::~Scheduler() {
  closing_ = true;
  host_stack_ = host_stack();
  for (std::size_t number = 0; number < capacity(); ++number) {
    switch_to(&fiber(number), host_, host_stack_);
    destroy_history(fiber(number).stack);
    fiber(number).~Fiber();
  }
}

void Scheduler::create(std::size_t number) {
  auto* const fiber = new (stacks_.thread(number)) Fiber;
  fiber->number = number;
  unsigned char* const bottom = stacks_.bottom(number);
  boost::context::stack_context stack;
  stack.size = stacks_.bytes(number);
  stack.sp = bottom + stack.size;
  fiber->stack.bottom = bottom;
  fiber->stack.bytes = stack.size;
  create_history(fiber->stack);
  fiber->context = boost::context::fiber(std::allocator_arg, boost::context::preallocated(stack.sp, stack.size, stack),
                                         KeepsStack{}, [this, fiber](boost::context::fiber&& from) {
                                           enter(*fiber, std::move(from));
                                           leave_stack(fiber->stack, host_stack_);
                                           return std::move(host_);
                                         });
}

void Scheduler::begin(std::uint64_t seed, std::size_t blocks, std::size_t threads_per_block) {
  random_ = Random(seed);
  redraw_period_ = redraw_periods[random_.below(std::size(redraw_periods))];
  const std::size_t warps_per_block = (threads_per_block + warp_lanes - 1) / warp_lanes;
  warp_count_ = blocks * warps_per_block;
  fiber_count_ = blocks * threads_per_block;
  if (warps_.size() < warp_count_)
    warps_.resize(warp_count_);
  for (std::size_t number = 0; number < fiber_count_; ++number) {
    Fiber& fiber = this->fiber(number);
    const std::size_t index = number % threads_per_block;
    const std::size_t lane = index % warp_lanes;
    Warp& warp = warps_[number / threads_per_block * warps_per_block + index / warp_lanes];
    if (lane == 0) {
      const std::size_t lanes = std::min<std::size_t>(threads_per_block - index, warp_lanes);
      warp.lanes = warp.ready = lanes == warp_lanes ? ~0U : (1U << lanes) - 1;
      warp.arrived = 0;
      warp.first_fiber = number;
      draw_priority(warp);
    }
    fiber.index = static_cast<std::int32_t>(index);
    fiber.warp = &warp;
    fiber.exchange = &warp.exchange;
    warp.exchange.threads[lane] = &fiber;
    fiber.started = fiber.finished = false;
  }
}

void Scheduler::run(FiberWork& work) {
  work_ = &work;
  unfinished_ = fiber_count_;
  running_ = nullptr;
  failure_ = nullptr;
  abandoning_ = false;
  host_stack_ = host_stack();
  switch_to(pick(), host_, host_stack_);
  if (failure_) {
    unwind_others();
    std::rethrow_exception(std::exchange(failure_, nullptr));
  }
}

void Scheduler::unwind_others() {
  abandoning_ = true;
  for (std::size_t number = 0; number < fiber_count_; ++number)
    if (fiber(number).started && !fiber(number).finished)
      switch_to(&fiber(number), host_, host_stack_);
}

Warp* Scheduler::pick_warp() {
  Warp* best = nullptr;
  for (std::size_t number = 0; number < warp_count_; ++number) {
    Warp& warp = warps_[number];
    if (warp.ready != 0 && (best == nullptr || warp.priority > best->priority))
      best = &warp;
  }
  return best;
}

/// A fiber's whole life: one run after the other, until the scheduler is destroyed.
void Scheduler::enter(Fiber& fiber, boost::context::fiber&& from) {
  enter_stack(fiber.stack, *left_stack_);
  *left_ = std::move(from);
  while (!closing_) {
    run_once(fiber);
    Fiber* next = nullptr;
    if (!failure_ && unfinished_ > 0) {
      next = pick();
      if (next == nullptr)
        failure_ = work_->deadlock();
    }
    switch_to(next, fiber.context, fiber.stack);
  }
}

void Scheduler::run_once(Fiber& fiber) {
  fiber.started = true;
  try {
    work_->run(fiber);
    work_->finished(fiber);
  } catch (const Abandoned&) {
    // Its error is another fiber's.
  } catch (...) {
    failure_ = std::current_exception();
  }
  fiber.finished = true;
  --unfinished_;
}

} // namespace tilewright::emulator
