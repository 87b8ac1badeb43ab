// A random problem's tensors in device memory, and the GPU that the tests run on.
#pragma once

#include <algorithm>
#include <cstddef>
#include <memory>
#include <span>
#include <tuple>
#include <vector>

#include <doctest/doctest.h>

#include "driver/cuda_device.hpp"
#include "driver/cuda_executor.hpp"
#include "driver/device_memory.hpp"
#include "support_random_problem.hpp"
#include <tilewright/error.hpp>

namespace tilewright::testing {

/// The first GPU; none, with a message that begins with SKIP, where there is none.
inline std::shared_ptr<const cuda::CudaDevice> gpu_or_skip() {
  try {
    return std::make_shared<const cuda::CudaDevice>(0);
  } catch (const Error& error) {
    if (error.code() != ErrorCode::no_device)
      throw;
    MESSAGE("SKIP: " << std::string(error.what()));
    return nullptr;
  }
}

/// Whole allocations travel, guards and gaps with them: what a kernel writes beside a tensor is seen on the host.
class DeviceProblem {
public:
  DeviceProblem(RandomProblem& problem, const std::shared_ptr<const cuda::CudaDevice>& device) {
    for (HostTensor& tensor : problem.tensors())
      copies_.push_back({&tensor, cuda::DeviceMemory(device, tensor.allocation_bytes())});
    std::tie(call_, pattern_) = problem.relocated([&](void* data) -> void* {
      const auto copy = std::find_if(copies_.begin(), copies_.end(),
                                     [&](const Copy& candidate) { return candidate.host->view().data == data; });
      return static_cast<std::byte*>(copy->device.data()) + HostTensor::guard_bytes;
    });
  }

  [[nodiscard]] const AttentionForward& call() const noexcept { return call_; }
  [[nodiscard]] const Pattern& pattern() const noexcept { return pattern_; }

  void upload() {
    for (Copy& copy : copies_)
      copy.device.copy_from_host({copy.host->allocation(), copy.host->allocation_bytes()});
  }
  void download() {
    for (Copy& copy : copies_)
      copy.device.copy_to_host({copy.host->allocation(), copy.host->allocation_bytes()});
  }

  /// Every tensor's bytes on the device.
  [[nodiscard]] std::vector<std::byte> bytes() const {
    std::vector<std::byte> all;
    for (const Copy& copy : copies_) {
      const std::size_t first = all.size();
      all.resize(first + copy.device.size());
      copy.device.copy_to_host(std::span(all).subspan(first));
    }
    return all;
  }

private:
  struct Copy {
    HostTensor* host;
    cuda::DeviceMemory device;
  };

  std::vector<Copy> copies_;
  AttentionForward call_;
  Pattern pattern_;
};

} // namespace tilewright::testing
