// The stacks that emulated CUDA threads run on.
#pragma once

#include <cstddef>
#include <cstdint>

#include "emulator/runtime.cuh"

namespace tilewright::emulator {

/// `count` stacks of stack_bytes, each aligned to its size: a place for the Thread at the low end (see runtime.cuh), an
/// inaccessible page, then the stack proper.
class Stacks {
public:
  explicit Stacks(std::size_t count);
  ~Stacks();
  Stacks(const Stacks&) = delete;
  Stacks& operator=(const Stacks&) = delete;

  [[nodiscard]] std::size_t count() const noexcept { return count_; }

  /// Where a stack's Thread goes: thread_bytes, aligned to 64.
  [[nodiscard]] void* thread(std::size_t index) const noexcept { return &thread_of_stack(first_ + index); }

  [[nodiscard]] unsigned char* bottom(std::size_t index) const noexcept;
  /// Bytes from the bottom to where the stack begins. Neighbours begin at different places of the caches.
  [[nodiscard]] std::size_t bytes(std::size_t index) const noexcept;

private:
  std::size_t count_;
  std::size_t mapped_bytes_;
  void* mapping_;
  std::uintptr_t first_; // number of the first stack: its address / stack_bytes
};

} // namespace tilewright::emulator
