#include "emulator/services.hpp"

#include "emulator/multiprocessor.hpp"

namespace tilewright::emulator {
namespace {

/// Services' function for a member of Multiprocessor.
template <auto member> struct Forward;
template <class... Arguments, void (Multiprocessor::*member)(Fiber&, Arguments...)> struct Forward<member> {
  static void call(Thread& thread, Arguments... arguments) {
    auto& fiber = static_cast<Fiber&>(thread);
    (fiber.processor->*member)(fiber, arguments...);
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
    .copy_async = Forward<&Multiprocessor::copy_async>::call,
    .commit_copies = Forward<&Multiprocessor::commit_copies>::call,
    .wait_for_copies = Forward<&Multiprocessor::wait_for_copies>::call,
    .check_shared = Forward<&Multiprocessor::check_shared>::call,
    .check_global = Forward<&Multiprocessor::check_global>::call,
};

} // namespace tilewright::emulator
