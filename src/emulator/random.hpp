// The one source of chance: every decision of the emulator follows from a seed.
#pragma once

#include <cstdint>

namespace tilewright::emulator {

/// SplitMix64's output function (Steele, Lea and Flood 2014): neighbouring inputs give unrelated outputs.
constexpr std::uint64_t mix(std::uint64_t value) noexcept {
  value += 0x9e3779b97f4a7c15U;
  value = (value ^ (value >> 30)) * 0xbf58476d1ce4e5b9U;
  value = (value ^ (value >> 27)) * 0x94d049bb133111ebU;
  return value ^ (value >> 31);
}

/// SplitMix64. The same seed gives the same numbers everywhere.
class Random {
public:
  explicit constexpr Random(std::uint64_t seed) noexcept : state_(seed) {}

  constexpr std::uint64_t next() noexcept {
    const std::uint64_t value = mix(state_);
    state_ += 0x9e3779b97f4a7c15U;
    return value;
  }

  /// Uniform in 0 .. bound - 1, as well as 64 bits allow.
  constexpr std::uint32_t below(std::uint32_t bound) noexcept {
    return static_cast<std::uint32_t>(((next() >> 32) * bound) >> 32);
  }

  constexpr bool one_in(std::uint32_t count) noexcept { return below(count) == 0; }

private:
  std::uint64_t state_;
};

} // namespace tilewright::emulator
