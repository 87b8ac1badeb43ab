// The state of a barrier in shared memory (PTX mbarrier): see templates/device/barrier.cuh for the rules.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace tilewright::emulator {

struct Fiber;

class SharedBarrier {
public:
  // PTX ISA, "Size and alignment of mbarrier object, contents, ranges".
  static constexpr std::int64_t most = (1 << 20) - 1;

  explicit SharedBarrier(std::int64_t arrivals) : arrivals_(arrivals), missing_arrivals_(arrivals) {}

  /// The phase that is running, from 0 on.
  [[nodiscard]] std::uint64_t phase() const noexcept { return phase_; }
  [[nodiscard]] std::int64_t missing_arrivals() const noexcept { return missing_arrivals_; }
  [[nodiscard]] std::int64_t missing_bytes() const noexcept { return missing_bytes_; }

  /// Whether a wait for this parity returns.
  [[nodiscard]] bool passed(std::uint32_t parity) const noexcept { return phase_ % 2 != parity; }

  void announce(std::int64_t bytes) noexcept { missing_bytes_ += bytes; }

  // Whether the phase has completed. The caller has checked that no more come than are missing.
  bool arrive(std::int64_t count) noexcept {
    missing_arrivals_ -= count;
    return complete();
  }
  bool bring(std::int64_t bytes) noexcept {
    missing_bytes_ -= bytes;
    return complete();
  }

  std::vector<Fiber*> waiting = {};
  bool published = false; // to the copy engine and to other thread blocks

private:
  bool complete() noexcept {
    if (missing_arrivals_ != 0 || missing_bytes_ != 0)
      return false;
    ++phase_;
    missing_arrivals_ = arrivals_;
    return true;
  }

  std::int64_t arrivals_;
  std::int64_t missing_arrivals_;
  std::int64_t missing_bytes_ = 0; // negative while bytes have come before they were announced
  std::uint64_t phase_ = 0;
};

} // namespace tilewright::emulator
