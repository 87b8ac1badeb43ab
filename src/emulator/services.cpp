#include "emulator/services.hpp"

#include "emulator/multiprocessor.hpp"

namespace tilewright::emulator {
namespace {

/// Services' function for a member of Multiprocessor.
template <auto member> struct Forward;
template <class Result, class... Arguments, Result (Multiprocessor::*member)(Fiber&, Arguments...)>
struct Forward<member> {
  static Result call(Thread& thread, Arguments... arguments) {
    auto& fiber = static_cast<Fiber&>(thread);
    return (fiber.processor->*member)(fiber, arguments...);
  }
};

/// Everything in it is made part of it: see the end of scheduler.hpp.
[[gnu::flatten]] void meet_warp(Thread& thread, WarpOperation operation, WarpWork work, Place place) {
  auto& fiber = static_cast<Fiber&>(thread);
  fiber.processor->meet_warp(fiber, operation, work, place);
}

} // namespace

const Services services = {
    .meet_warp = meet_warp,
    .synchronize_block = Forward<&Multiprocessor::synchronize_block>::call,
    .synchronize_cluster = Forward<&Multiprocessor::synchronize_cluster>::call,
    .meet_threads = Forward<&Multiprocessor::meet_threads>::call,
    .check_shared = Forward<&Multiprocessor::check_shared>::call,
    .check_global = Forward<&Multiprocessor::check_global>::call,
    .copy_async = Forward<&Multiprocessor::copy_async>::call,
    .commit_copies = Forward<&Multiprocessor::commit_copies>::call,
    .wait_for_copies = Forward<&Multiprocessor::wait_for_copies>::call,
    .initialize_barrier = Forward<&Multiprocessor::initialize_barrier>::call,
    .publish_barriers = Forward<&Multiprocessor::publish_barriers>::call,
    .arrive = Forward<&Multiprocessor::arrive>::call,
    .wait_for_phase = Forward<&Multiprocessor::wait_for_phase>::call,
    .has_passed = Forward<&Multiprocessor::has_passed>::call,
    .check_map = Forward<&Multiprocessor::check_map>::call,
    .copy_box_to_shared = Forward<&Multiprocessor::copy_box_to_shared>::call,
    .copy_bytes_to_shared = Forward<&Multiprocessor::copy_bytes_to_shared>::call,
    .copy_box_to_global = Forward<&Multiprocessor::copy_box_to_global>::call,
    .commit_box_copies = Forward<&Multiprocessor::commit_box_copies>::call,
    .wait_for_boxes = Forward<&Multiprocessor::wait_for_boxes>::call,
    .fence_shared = Forward<&Multiprocessor::fence_shared>::call,
    .check_accumulator = Forward<&Multiprocessor::check_accumulator>::call,
    .set_registers = Forward<&Multiprocessor::set_registers>::call,
    .fence_products = Forward<&Multiprocessor::fence_products>::call,
    .issue_product = Forward<&Multiprocessor::issue_product>::call,
    .commit_products = Forward<&Multiprocessor::commit_products>::call,
    .wait_for_products = Forward<&Multiprocessor::wait_for_products>::call,
};

} // namespace tilewright::emulator
