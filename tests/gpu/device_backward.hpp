// A random backward problem's tensors in device memory.
#pragma once

#include <tuple>
#include <vector>

#include "device_problem.hpp"
#include "support_random_backward.hpp"

namespace tilewright::testing {

/// Whole allocations travel, guards and gaps with them.
class DeviceBackward {
public:
  DeviceBackward(RandomBackward& problem, const std::shared_ptr<const cuda::CudaDevice>& device)
      : workspace_(device, problem.call().workspace_bytes) {
    for (HostTensor* tensor : problem.tensors())
      copies_.push_back({tensor, cuda::DeviceMemory(device, tensor->allocation_bytes())});
    std::tie(call_, pattern_) = problem.relocated([&](void* data) -> void* {
      for (const Copy& copy : copies_)
        if (copy.host->view().data == data)
          return static_cast<std::byte*>(copy.device.data()) + HostTensor::guard_bytes;
      FAIL("a tensor without a copy");
      return nullptr;
    });
    call_.workspace = workspace_.data();
  }

  void upload() {
    for (Copy& copy : copies_)
      copy.device.copy_from_host({copy.host->allocation(), copy.host->allocation_bytes()});
    workspace_.fill(std::byte{0x7f});
  }
  void download() {
    for (Copy& copy : copies_)
      copy.device.copy_to_host({copy.host->allocation(), copy.host->allocation_bytes()});
  }
  [[nodiscard]] const AttentionBackward& call() const noexcept { return call_; }
  [[nodiscard]] const Pattern& pattern() const noexcept { return pattern_; }

private:
  struct Copy {
    HostTensor* host;
    cuda::DeviceMemory device;
  };

  std::vector<Copy> copies_;
  cuda::DeviceMemory workspace_;
  AttentionBackward call_;
  Pattern pattern_;
};

} // namespace tilewright::testing
