#include "driver/device_memory.hpp"

#include <utility>

#include <fmt/format.h>

#include <tilewright/error.hpp>

namespace tilewright::cuda {
namespace {

void check_size(std::size_t host, std::size_t device) {
  if (host != device)
    throw Error(ErrorCode::internal, fmt::format("a copy of {} bytes meets device memory of {} bytes", host, device),
                "both sides of a copy have the same size", "report this as a fault of tilewright");
}

} // namespace

DeviceMemory::DeviceMemory(std::shared_ptr<const CudaDevice> device, std::size_t bytes)
    : device_(std::move(device)), bytes_(bytes) {
  if (bytes_ == 0)
    return;
  const ContextGuard guard(*device_);
  device_->check(device_->api().memory_allocate(&pointer_, bytes_), fmt::format("cuMemAlloc of {} bytes", bytes_));
}

DeviceMemory::~DeviceMemory() {
  if (pointer_ == 0)
    return;
  const ContextGuard guard(*device_);
  device_->api().memory_free(pointer_);
}

DeviceMemory::DeviceMemory(DeviceMemory&& other) noexcept
    : device_(other.device_), pointer_(std::exchange(other.pointer_, 0)), bytes_(std::exchange(other.bytes_, 0)) {}

DeviceMemory& DeviceMemory::operator=(DeviceMemory&& other) noexcept {
  std::swap(device_, other.device_);
  std::swap(pointer_, other.pointer_);
  std::swap(bytes_, other.bytes_);
  return *this;
}

void* DeviceMemory::data() const noexcept { return reinterpret_cast<void*>(pointer_); }

void DeviceMemory::copy_from_host(std::span<const std::byte> host) {
  check_size(host.size(), bytes_);
  if (bytes_ == 0)
    return;
  const ContextGuard guard(*device_);
  device_->check(device_->api().memory_copy_to_device(pointer_, host.data(), bytes_), "cuMemcpyHtoD");
}

void DeviceMemory::copy_to_host(std::span<std::byte> host) const {
  check_size(host.size(), bytes_);
  if (bytes_ == 0)
    return;
  const ContextGuard guard(*device_);
  device_->check(device_->api().memory_copy_to_host(host.data(), pointer_, bytes_), "cuMemcpyDtoH");
}

void DeviceMemory::fill(std::byte value) {
  if (bytes_ == 0)
    return;
  const ContextGuard guard(*device_);
  device_->check(device_->api().memory_set_async(pointer_, std::to_integer<unsigned char>(value), bytes_, nullptr),
                 "cuMemsetD8Async");
}

Stopwatch::Stopwatch(std::shared_ptr<const CudaDevice> device) : device_(std::move(device)) {
  constexpr unsigned default_flags = 0;
  const ContextGuard guard(*device_);
  device_->check(device_->api().event_create(&start_, default_flags), "cuEventCreate");
  device_->check(device_->api().event_create(&stop_, default_flags), "cuEventCreate");
}

Stopwatch::~Stopwatch() {
  const ContextGuard guard(*device_);
  device_->api().event_destroy(start_);
  device_->api().event_destroy(stop_);
}

void Stopwatch::start(Stream stream) {
  const ContextGuard guard(*device_);
  device_->check(device_->api().event_record(start_, stream), "cuEventRecord");
}

void Stopwatch::stop(Stream stream) {
  const ContextGuard guard(*device_);
  device_->check(device_->api().event_record(stop_, stream), "cuEventRecord");
}

double Stopwatch::milliseconds() const {
  const ContextGuard guard(*device_);
  device_->check(device_->api().event_synchronize(stop_), "cuEventSynchronize");
  float elapsed = 0;
  device_->check(device_->api().event_elapsed_time(&elapsed, start_, stop_), "cuEventElapsedTime");
  return elapsed;
}

} // namespace tilewright::cuda
