// Tells the address and thread sanitizers when the host thread changes stacks. Empty in other builds.
#pragma once

#include <cstddef>

#if defined(__has_feature)
#if __has_feature(address_sanitizer)
#define TILEWRIGHT_ADDRESS_SANITIZER 1
#endif
#if __has_feature(thread_sanitizer)
#define TILEWRIGHT_THREAD_SANITIZER 1
#endif
#endif
#if defined(__SANITIZE_ADDRESS__)
#define TILEWRIGHT_ADDRESS_SANITIZER 1
#endif
#if defined(__SANITIZE_THREAD__)
#define TILEWRIGHT_THREAD_SANITIZER 1
#endif

#if defined(TILEWRIGHT_ADDRESS_SANITIZER)
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#endif
#if defined(TILEWRIGHT_THREAD_SANITIZER)
#include <sanitizer/tsan_interface.h>
#endif

namespace tilewright::emulator {

/// What the sanitizers know of one stack. Where the host thread's own lies is learnt when it is left.
struct SanitizedStack {
  const void* bottom = nullptr;
  std::size_t bytes = 0;
  [[maybe_unused]] void* fake_stack = nullptr; // the address sanitizer's
  [[maybe_unused]] void* history = nullptr;    // the thread sanitizer's
};

inline void create_history([[maybe_unused]] SanitizedStack& stack) {
#if defined(TILEWRIGHT_THREAD_SANITIZER)
  stack.history = __tsan_create_fiber(0);
#endif
}

inline void destroy_history([[maybe_unused]] SanitizedStack& stack) {
#if defined(TILEWRIGHT_THREAD_SANITIZER)
  __tsan_destroy_fiber(stack.history);
#endif
}

/// The stack of the host thread that calls.
inline SanitizedStack host_stack() {
  SanitizedStack stack;
#if defined(TILEWRIGHT_THREAD_SANITIZER)
  stack.history = __tsan_get_current_fiber();
#endif
  return stack;
}

/// Before memory that held stacks is unmapped: frames that were never left stay poisoned for what is mapped there next.
inline void forget_frames([[maybe_unused]] void* memory, [[maybe_unused]] std::size_t bytes) {
#if defined(TILEWRIGHT_ADDRESS_SANITIZER)
  __asan_unpoison_memory_region(memory, bytes);
#endif
}

// Always inlined, what switches between histories: a function that begins in one of them must not end in another.

/// From here on the thread sanitizer takes what happens for this stack's.
[[gnu::always_inline]] inline void switch_history([[maybe_unused]] const SanitizedStack& to) {
#if defined(TILEWRIGHT_THREAD_SANITIZER)
  if (__tsan_get_current_fiber() != to.history)
    __tsan_switch_to_fiber(to.history, 0);
#endif
}

/// Just before the stack's outermost functions return: they do so in its history, which enter_stack leaves.
inline void leave_stack_for_good([[maybe_unused]] SanitizedStack& from, [[maybe_unused]] const SanitizedStack& to) {
#if defined(TILEWRIGHT_ADDRESS_SANITIZER)
  __sanitizer_start_switch_fiber(&from.fake_stack, to.bottom, to.bytes);
#endif
}

/// Just before a switch.
[[gnu::always_inline]] inline void leave_stack(SanitizedStack& from, const SanitizedStack& to) {
  leave_stack_for_good(from, to);
  switch_history(to);
}

/// Just after a switch, on the stack that was entered.
[[gnu::always_inline]] inline void enter_stack([[maybe_unused]] SanitizedStack& entered,
                                               [[maybe_unused]] SanitizedStack& left) {
#if defined(TILEWRIGHT_ADDRESS_SANITIZER)
  __sanitizer_finish_switch_fiber(entered.fake_stack, &left.bottom, &left.bytes);
#endif
  switch_history(entered);
}

} // namespace tilewright::emulator
