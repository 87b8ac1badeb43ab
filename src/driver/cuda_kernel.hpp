// A cubin, loaded on one device and ready to launch.
#pragma once

#include <memory>

#include "cache/entry.hpp"
#include "driver/cuda_device.hpp"

namespace tilewright::cuda {

class CudaKernel final : public Kernel {
public:
  /// Loads the code now and lets it use all the dynamic shared memory that the device can give. Throws driver_error,
  /// with the compiler's and the driver's version where the driver does not take the cubin.
  CudaKernel(std::shared_ptr<const CudaDevice> device, const cache::CacheEntry& entry);
  ~CudaKernel() override;
  CudaKernel(const CudaKernel&) = delete;
  CudaKernel& operator=(const CudaKernel&) = delete;

  [[nodiscard]] const KernelReport& report() const noexcept override { return report_; }
  [[nodiscard]] KernelOrigin origin() const noexcept override { return origin_; }
  [[nodiscard]] Function function() const noexcept { return function_; }

private:
  std::shared_ptr<const CudaDevice> device_;
  KernelReport report_;
  KernelOrigin origin_;
  Library library_ = nullptr;
  Function function_ = nullptr;
};

} // namespace tilewright::cuda
