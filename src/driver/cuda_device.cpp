#include "driver/cuda_device.hpp"

#include <array>

#include <fmt/format.h>

#include <tilewright/error.hpp>

namespace tilewright::cuda {
namespace {

int read_attribute(const Api& api, DeviceAttribute attribute, Device device) {
  int value = 0;
  check(api, api.device_get_attribute(&value, attribute, device), "cuDeviceGetAttribute");
  return value;
}

Device device_of(const Api& api, int ordinal) {
  Device device = 0;
  check(api, api.device_get(&device, ordinal), "cuDeviceGet");
  return device;
}

int current_or_first_device(const Api& api) {
  Context current = nullptr;
  Device device = 0;
  if (api.context_get_current(&current) == Result::success && current != nullptr)
    check(api, api.context_get_device(&device), "cuCtxGetDevice");
  return device; // a CUdevice is its ordinal
}

int choose_device(const Api& api, int ordinal) {
  const int count = device_count(api);
  if (count == 0)
    throw Error(ErrorCode::no_device, fmt::format("the CUDA driver {} sees no GPU", api.library),
                "a GPU of compute capability 8.0 or newer, visible to this process, is needed",
                "see what $CUDA_VISIBLE_DEVICES hides, or use the emulator");
  if (ordinal == -1)
    return current_or_first_device(api);
  if (ordinal < 0 || ordinal >= count)
    throw Error(
        ErrorCode::invalid_argument, fmt::format("device is {}", ordinal),
        fmt::format("0 to {} (the GPUs that this process sees), or -1 for the current one, are allowed", count - 1),
        "choose one of them; $CUDA_VISIBLE_DEVICES decides which a process sees");
  return ordinal;
}

} // namespace

int device_count(const Api& api) {
  int count = 0;
  const Result result = api.device_get_count(&count);
  if (result == Result::no_device)
    return 0;
  check(api, result, "cuDeviceGetCount");
  return count;
}

DeviceDescription describe_device(const Api& api, int ordinal) {
  const Device device = device_of(api, ordinal);
  std::array<char, 256> name{};
  check(api, api.device_get_name(name.data(), static_cast<int>(name.size()) - 1, device), "cuDeviceGetName");
  DeviceDescription description;
  description.name = name.data();
  description.architecture.major =
      static_cast<std::uint8_t>(read_attribute(api, DeviceAttribute::compute_capability_major, device));
  description.architecture.minor =
      static_cast<std::uint8_t>(read_attribute(api, DeviceAttribute::compute_capability_minor, device));
  description.multiprocessors = read_attribute(api, DeviceAttribute::multiprocessor_count, device);
  description.shared_bytes_per_block = read_attribute(api, DeviceAttribute::shared_bytes_per_block_optin, device);
  description.ordinal = ordinal;
  return description;
}

CudaDevice::CudaDevice(int ordinal) : api_(open_api()) {
  const int chosen = choose_device(api_, ordinal);
  handle_ = device_of(api_, chosen);
  description_ = describe_device(api_, chosen);
  constexpr int oldest_major = 8;
  if (description_.architecture.major < oldest_major)
    throw Error(ErrorCode::no_device,
                fmt::format("device {} ({}) has compute capability {}.{}", chosen, description_.name,
                            description_.architecture.major, description_.architecture.minor),
                fmt::format("compute capability {}.0 (Ampere) or newer is needed", oldest_major),
                "choose another GPU, or use the emulator");
  check(api_.primary_context_retain(&context_, handle_), "cuDevicePrimaryCtxRetain");
}

CudaDevice::~CudaDevice() { api_.primary_context_release(handle_); }

int CudaDevice::attribute(DeviceAttribute attribute) const { return read_attribute(api_, attribute, handle_); }

ContextGuard::ContextGuard(const CudaDevice& device) noexcept {
  Context current = nullptr;
  if (device.api().context_get_current(&current) == Result::success && current == device.context())
    return;
  if (device.api().context_push(device.context()) == Result::success)
    pushed_ = &device;
}

ContextGuard::~ContextGuard() {
  Context popped = nullptr;
  if (pushed_ != nullptr)
    pushed_->api().context_pop(&popped);
}

void refuse_capture(const CudaDevice& device, Stream stream, std::string_view action) {
  const ContextGuard guard(device);
  CaptureStatus status = CaptureStatus::none;
  const Result result = device.api().stream_is_capturing(stream, &status);
  // Asked about the default stream while another one is captured, the driver answers with an error of its own.
  if (status != CaptureStatus::none || is_capture_error(result))
    throw Error(ErrorCode::capture_in_progress,
                fmt::format("the stream is being captured into a graph, and {}", action),
                "during a capture only prepared kernels can be launched",
                "call prepare() with this problem before the capture begins");
  device.check(result, "cuStreamIsCapturing");
}

} // namespace tilewright::cuda
