#include "emulator/names.hpp"

#include <bit>

#include <fmt/format.h>

namespace tilewright::emulator {

std::string to_string(Place place) { return fmt::format("{}:{}", place.file, place.line); }

std::string lanes_to_string(std::uint32_t mask) {
  std::string text;
  for (int lane = 0; mask >> lane != 0;) {
    lane += std::countr_zero(mask >> lane);
    const int last = lane + std::countr_one(mask >> lane) - 1;
    text += text.empty() ? "" : ", ";
    text += last == lane ? fmt::format("{}", lane) : fmt::format("{}-{}", lane, last);
    if (last == warp_lanes - 1)
      break;
    lane = last + 1;
  }
  return text;
}

} // namespace tilewright::emulator
