#include "emulator/scheduler.hpp"

#include <iterator>

namespace tilewright::emulator {
namespace {

// yield draws a new priority once in so many times; each block has one of these.
constexpr std::uint32_t redraw_periods[] = {1, 4, 32, 512};

/// The stacks belong to the scheduler.
struct KeepsStack {
  static void deallocate(boost::context::stack_context&) noexcept {}
};

} // namespace

Scheduler::Scheduler(std::size_t capacity) : stacks_(capacity), warps_(capacity / warp_lanes) {
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
  const SanitizedStack host = host_stack();
  switch_history(fiber->stack); // boost enters the stack once, and comes back
  fiber->context = boost::context::fiber(std::allocator_arg, boost::context::preallocated(stack.sp, stack.size, stack),
                                         KeepsStack{}, [this, fiber](boost::context::fiber&& from) {
                                           enter(*fiber, std::move(from));
                                           leave_stack_for_good(fiber->stack, host_stack_);
                                           return std::move(host_);
                                         });
  switch_history(host);
}

void Scheduler::begin(std::uint64_t seed, std::size_t blocks, std::size_t threads_per_block) {
  random_ = Random(seed);
  redraw_period_ = redraw_periods[random_.below(std::size(redraw_periods))];
  warp_count_ = blocks * threads_per_block / warp_lanes;
  fiber_count_ = blocks * threads_per_block;
  for (std::size_t number = 0; number < warp_count_; ++number) {
    Warp& warp = warps_[number];
    warp.ready = all_lanes;
    warp.arrived = 0;
    warp.number = number;
    warp.first_fiber = number * warp_lanes;
    warp.exchange.elected = static_cast<std::int32_t>(random_.below(warp_lanes));
    draw_priority(warp);
    for (std::size_t lane = 0; lane < warp_lanes; ++lane) {
      Fiber& fiber = this->fiber(warp.first_fiber + lane);
      fiber.index = static_cast<std::int32_t>((warp.first_fiber + lane) % threads_per_block);
      fiber.warp = &warp;
      fiber.exchange = &warp.exchange;
      fiber.started = fiber.finished = false;
      warp.exchange.threads[lane] = &fiber;
    }
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
    if (!failure_ && unfinished_ > 0)
      next = pick_or_fail();
    switch_to(next, fiber.context, fiber.stack);
  }
}

/// nullptr: there is a failure now.
Fiber* Scheduler::pick_or_fail() {
  try {
    Fiber* const next = pick();
    if (next == nullptr)
      failure_ = work_->deadlock();
    return next;
  } catch (...) {
    failure_ = std::current_exception();
    return nullptr;
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
