#include "driver/cuda_api.hpp"

#include <array>
#include <utility>
#include <vector>

#include <dlfcn.h>
#include <fmt/format.h>
#include <fmt/ranges.h>

#include "support/environment.hpp"
#include <tilewright/error.hpp>

namespace tilewright::cuda {
namespace {

constexpr const char* library_variable = "TILEWRIGHT_LIBCUDA";
constexpr int oldest_driver = 12000; // cuLibraryLoadData and cuLaunchKernelEx's final form

std::vector<std::string> candidates() {
  if (auto path = support::environment(library_variable))
    return {*path};
  return {"libcuda.so.1", "/usr/lib/wsl/lib/libcuda.so.1", "/usr/local/nvidia/lib64/libcuda.so.1",
          "/run/nvidia/driver/usr/lib/x86_64-linux-gnu/libcuda.so.1"};
}

struct OpenLibrary {
  void* handle;
  std::string name;
};

OpenLibrary open_library() {
  const std::vector<std::string> names = candidates();
  std::string reason; // the first: the others are places where the driver need not be
  for (const std::string& name : names) {
    if (void* handle = dlopen(name.c_str(), RTLD_NOW | RTLD_LOCAL))
      return {handle, name};
    if (reason.empty())
      reason = dlerror();
  }
  throw Error(
      ErrorCode::no_device, fmt::format("no CUDA driver: {} (looked for {})", reason, fmt::join(names, ", ")),
      fmt::format("an NVIDIA driver of CUDA {} or newer is needed to run on a GPU", version_text(oldest_driver)),
      fmt::format("install the driver, or name its libcuda.so.1 in ${}, or use the emulator", library_variable));
}

template <typename Function> void find(const OpenLibrary& library, const char* symbol, Function& function) {
  function = reinterpret_cast<Function>(dlsym(library.handle, symbol));
}

template <typename Function> void require(const OpenLibrary& library, const char* symbol, Function& function) {
  find(library, symbol, function);
  if (function == nullptr)
    throw Error(ErrorCode::no_device, fmt::format("the CUDA driver {} has no {}", library.name, symbol),
                fmt::format("a driver of CUDA {} or newer (525.60) is needed", version_text(oldest_driver)),
                "update the NVIDIA driver, or use the emulator");
}

Api load_entry_points(const OpenLibrary& library) {
  Api api;
  api.library = library.name;
  require(library, "cuGetErrorName", api.get_error_name);
  require(library, "cuGetErrorString", api.get_error_string);
  require(library, "cuInit", api.init);
  require(library, "cuDriverGetVersion", api.driver_get_version);
  require(library, "cuDeviceGetCount", api.device_get_count);
  require(library, "cuDeviceGet", api.device_get);
  require(library, "cuDeviceGetName", api.device_get_name);
  require(library, "cuDeviceGetAttribute", api.device_get_attribute);
  require(library, "cuDeviceTotalMem_v2", api.device_total_memory);
  require(library, "cuDevicePrimaryCtxRetain", api.primary_context_retain);
  require(library, "cuDevicePrimaryCtxRelease_v2", api.primary_context_release);
  require(library, "cuCtxGetCurrent", api.context_get_current);
  require(library, "cuCtxGetDevice", api.context_get_device);
  require(library, "cuCtxPushCurrent_v2", api.context_push);
  require(library, "cuCtxPopCurrent_v2", api.context_pop);
  require(library, "cuLibraryLoadData", api.library_load_data);
  require(library, "cuLibraryUnload", api.library_unload);
  require(library, "cuLibraryGetKernel", api.library_get_kernel);
  require(library, "cuKernelGetFunction", api.kernel_get_function);
  require(library, "cuKernelSetAttribute", api.kernel_set_attribute);
  require(library, "cuFuncGetAttribute", api.function_get_attribute);
  find(library, "cuFuncLoad", api.function_load);
  require(library, "cuLaunchKernelEx", api.launch_kernel);
  require(library, "cuTensorMapEncodeTiled", api.tensor_map_encode_tiled);
  require(library, "cuPointerGetAttributes", api.pointer_get_attributes);
  require(library, "cuMemAlloc_v2", api.memory_allocate);
  require(library, "cuMemFree_v2", api.memory_free);
  require(library, "cuMemcpyHtoD_v2", api.memory_copy_to_device);
  require(library, "cuMemcpyDtoH_v2", api.memory_copy_to_host);
  require(library, "cuMemcpyDtoHAsync_v2", api.memory_copy_to_host_async);
  require(library, "cuMemsetD8Async", api.memory_set_async);
  require(library, "cuStreamIsCapturing", api.stream_is_capturing);
  require(library, "cuStreamSynchronize", api.stream_synchronize);
  require(library, "cuThreadExchangeStreamCaptureMode", api.exchange_capture_mode);
  require(library, "cuEventCreate", api.event_create);
  require(library, "cuEventDestroy_v2", api.event_destroy);
  require(library, "cuEventRecord", api.event_record);
  require(library, "cuEventSynchronize", api.event_synchronize);
  require(library, "cuEventElapsedTime", api.event_elapsed_time);
  return api;
}

/// What is expected and what to do, for the results that a user can do something about.
std::pair<std::string_view, std::string_view> advice(Result result) {
  switch (result) {
  case Result::out_of_memory:
    return {"the device's memory must hold the tensors", "free device memory, or use smaller tensors"};
  case Result::illegal_address:
  case Result::launch_failed:
    return {"kernels must stay within the tensors given to them",
            "check the tensors' pointers, extents and strides; run under compute-sanitizer; the process must be "
            "restarted"};
  case Result::launch_out_of_resources:
    return {"the kernel's registers and shared memory must fit this device",
            "leave the choice of the schedule to the runtime, or choose a smaller one"};
  case Result::system_driver_mismatch:
    return {"the driver's library and its kernel module must be of one version",
            "reboot, or restart the container, after a driver update"};
  default:
    return {"the CUDA driver is expected to carry out this call",
            "see the driver's error above; `tilewright doctor` shows what was found on this machine"};
  }
}

} // namespace

std::string version_text(int version) { return fmt::format("{}.{}", version / 1000, version % 1000 / 10); }

std::string describe(const Api& api, Result result) {
  const char* name = nullptr;
  const char* text = nullptr;
  const int number = static_cast<int>(result);
  if (api.get_error_name(result, &name) != Result::success || name == nullptr)
    return fmt::format("CUDA error {}", number);
  if (api.get_error_string(result, &text) != Result::success || text == nullptr)
    return fmt::format("{} ({})", name, number);
  return fmt::format("{} ({}, {})", name, number, text);
}

void check(const Api& api, Result result, std::string_view call) {
  if (result == Result::success)
    return;
  const auto [allowed, remedy] = advice(result);
  throw Error(ErrorCode::driver_error, fmt::format("{} failed with {}", call, describe(api, result)),
              std::string(allowed), std::string(remedy));
}

bool is_capture_error(Result result) noexcept {
  return result >= Result::stream_capture_unsupported && result <= Result::captured_event;
}

Api open_api() {
  const OpenLibrary library = open_library();
  Api api = load_entry_points(library);
  if (const Result result = api.init(0); result != Result::success)
    throw Error(ErrorCode::no_device,
                fmt::format("the CUDA driver {} does not start: {}", library.name, describe(api, result)),
                "a GPU of compute capability 8.0 or newer, visible to this process, is needed",
                "see whether nvidia-smi works here and what $CUDA_VISIBLE_DEVICES hides, or use the emulator");
  check(api, api.driver_get_version(&api.driver_version), "cuDriverGetVersion");
  if (api.driver_version < oldest_driver)
    throw Error(ErrorCode::no_device,
                fmt::format("the CUDA driver {} is of CUDA {}", library.name, version_text(api.driver_version)),
                fmt::format("a driver of CUDA {} or newer (525.60) is needed", version_text(oldest_driver)),
                "update the NVIDIA driver, or use the emulator");
  return api;
}

} // namespace tilewright::cuda
