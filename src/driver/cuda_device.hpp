// One GPU: its primary context, retained, and what is known of it.
#pragma once

#include <memory>
#include <string_view>

#include "driver/cuda_api.hpp"
#include "driver/executor.hpp"

namespace tilewright::cuda {

/// Immutable and thread-safe. All work goes to the device's primary context, the one that the CUDA runtime and
/// PyTorch use: streams and memory of contexts that the host made by itself do not belong to it.
class CudaDevice {
public:
  /// ordinal as CUDA counts; -1: the device of the calling thread's current context, else 0. Throws no_device, or
  /// invalid_argument where there are fewer devices.
  explicit CudaDevice(int ordinal);
  ~CudaDevice();
  CudaDevice(const CudaDevice&) = delete;
  CudaDevice& operator=(const CudaDevice&) = delete;

  [[nodiscard]] const Api& api() const noexcept { return api_; }
  [[nodiscard]] Device handle() const noexcept { return handle_; }
  [[nodiscard]] Context context() const noexcept { return context_; }
  [[nodiscard]] const DeviceDescription& description() const noexcept { return description_; }

  [[nodiscard]] int attribute(DeviceAttribute attribute) const;
  void check(Result result, std::string_view call) const { cuda::check(api_, result, call); }

private:
  Api api_;
  Device handle_ = 0;
  Context context_ = nullptr;
  DeviceDescription description_;
};

/// Makes the device's context the thread's current one for the lifetime of this value, where it is not already.
/// Never throws, since destructors need it: without a context the guarded calls fail and say so.
class ContextGuard {
public:
  explicit ContextGuard(const CudaDevice& device) noexcept;
  ~ContextGuard();
  ContextGuard(const ContextGuard&) = delete;
  ContextGuard& operator=(const ContextGuard&) = delete;

private:
  const CudaDevice* pushed_ = nullptr;
};

/// Devices that this process sees.
int device_count(const Api& api);

/// Name, architecture and limits of a device, without making a context on it.
DeviceDescription describe_device(const Api& api, int ordinal);

/// Throws capture_in_progress where the stream is being captured; action says what must not happen then.
void refuse_capture(const CudaDevice& device, Stream stream, std::string_view action);

} // namespace tilewright::cuda
