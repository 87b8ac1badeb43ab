// Device memory with an owner: for the tools and the tests. The operators allocate nothing.
#pragma once

#include <cstddef>
#include <memory>
#include <span>

#include "driver/cuda_device.hpp"

namespace tilewright::cuda {

/// Copies are synchronous and ordered after everything on the device's default stream.
class DeviceMemory {
public:
  DeviceMemory(std::shared_ptr<const CudaDevice> device, std::size_t bytes);
  ~DeviceMemory();
  DeviceMemory(DeviceMemory&& other) noexcept;
  DeviceMemory& operator=(DeviceMemory&& other) noexcept;

  [[nodiscard]] void* data() const noexcept;
  [[nodiscard]] std::size_t size() const noexcept { return bytes_; }

  /// The sizes must be this memory's.
  void copy_from_host(std::span<const std::byte> host);
  void copy_to_host(std::span<std::byte> host) const;
  /// Enqueued on the default stream, not waited for.
  void fill(std::byte value);

private:
  std::shared_ptr<const CudaDevice> device_;
  DevicePointer pointer_ = 0;
  std::size_t bytes_ = 0;
};

/// Two events on a stream: the time that the device spent between them.
class Stopwatch {
public:
  explicit Stopwatch(std::shared_ptr<const CudaDevice> device);
  ~Stopwatch();
  Stopwatch(const Stopwatch&) = delete;
  Stopwatch& operator=(const Stopwatch&) = delete;

  void start(Stream stream = nullptr);
  void stop(Stream stream = nullptr);
  /// Waits for stop() and gives the milliseconds since start().
  [[nodiscard]] double milliseconds() const;

private:
  std::shared_ptr<const CudaDevice> device_;
  Event start_ = nullptr, stop_ = nullptr;
};

} // namespace tilewright::cuda
