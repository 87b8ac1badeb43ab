// A list of host tensors and their copies in device memory.
#pragma once

#include <algorithm>
#include <cstddef>
#include <list>
#include <memory>
#include <vector>

#include "driver/cuda_device.hpp"
#include "driver/device_memory.hpp"
#include "support_tensor.hpp"

namespace tilewright::testing {

/// Copies of all of a problem's tensors on the device, guards and gaps with them, at the same place within 256 bytes.
class DeviceTensors {
public:
  DeviceTensors(std::list<HostTensor>& tensors, const std::shared_ptr<const cuda::CudaDevice>& device) {
    for (HostTensor& tensor : tensors)
      copies_.push_back({&tensor, cuda::DeviceMemory(device, tensor.allocation_bytes() + alignment)});
  }
  void* at(const void* host) const {
    for (const Copy& copy : copies_) {
      const auto* first = copy.host->allocation();
      const auto* address = static_cast<const std::byte*>(host);
      if (address >= first && address < first + copy.host->allocation_bytes())
        return static_cast<std::byte*>(copy.device.data()) + skipped(copy) + (address - first);
    }
    return nullptr;
  }
  void upload() {
    for (Copy& copy : copies_)
      copy.device.copy_from_host(padded(copy));
  }
  void download() {
    for (Copy& copy : copies_) {
      std::vector<std::byte> bytes(copy.device.size());
      copy.device.copy_to_host(bytes);
      std::copy_n(bytes.begin() + static_cast<std::ptrdiff_t>(skipped(copy)), copy.host->allocation_bytes(),
                  copy.host->allocation());
    }
  }

private:
  static constexpr std::size_t alignment = 256;
  struct Copy {
    HostTensor* host;
    cuda::DeviceMemory device;
  };
  static std::size_t skipped(const Copy& copy) {
    return reinterpret_cast<std::uintptr_t>(copy.host->allocation()) % alignment;
  }
  std::vector<std::byte> padded(const Copy& copy) {
    std::vector<std::byte> bytes(copy.device.size());
    std::copy_n(copy.host->allocation(), copy.host->allocation_bytes(),
                bytes.begin() + static_cast<std::ptrdiff_t>(skipped(copy)));
    return bytes;
  }
  std::vector<Copy> copies_;
};

} // namespace tilewright::testing
