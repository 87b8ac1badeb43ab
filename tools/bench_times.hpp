// Measured times, and the flushed cache between two measurements.
#pragma once

#include <algorithm>
#include <cstddef>
#include <optional>
#include <vector>

#include "device.hpp"

namespace tilewright::tools {

struct Times {
  double lower_quartile, median, upper_quartile; // milliseconds
};

inline Times quartiles(std::vector<double> times) {
  std::sort(times.begin(), times.end());
  return {times[times.size() / 4], times[times.size() / 2], times[times.size() * 3 / 4]};
}

/// Writes more than the L2 holds, so that the next kernel finds nothing of its inputs there.
class L2Flush {
public:
  explicit L2Flush(const Device& device) {
    constexpr std::size_t times_larger = 2;
    if (device.is_gpu())
      memory_.emplace(device.gpu(), times_larger * static_cast<std::size_t>(
                                                       device.gpu()->attribute(cuda::DeviceAttribute::l2_cache_bytes)));
  }
  void operator()() {
    if (memory_)
      memory_->fill(std::byte{1});
  }

private:
  std::optional<cuda::DeviceMemory> memory_;
};

} // namespace tilewright::tools
