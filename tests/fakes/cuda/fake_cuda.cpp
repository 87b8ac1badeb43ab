// The entry points of libcuda that tilewright calls, without a GPU. Signatures as in cuda.h.
#include "fake_cuda.hpp"

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <mutex>

namespace {

using fake_cuda::State;

constexpr int success = 0, invalid_value = 1, no_device = 100, invalid_context = 201, not_found = 500;
constexpr int max_devices = 8;

/// $FAKE_CUDA_CAPABILITY, such as 120, for programs that cannot reach the state; limits from the CUDA C++ Programming
/// Guide, "Compute Capabilities".
std::vector<fake_cuda::FakeDevice> devices_at_start() {
  fake_cuda::FakeDevice device;
  if (const char* const capability = std::getenv("FAKE_CUDA_CAPABILITY")) {
    const int number = std::atoi(capability);
    device.name = std::string("Fake ") + capability;
    device.major = number / 10;
    device.minor = number % 10;
    const bool small = number == 86 || number == 89 || number >= 120;
    device.shared_bytes_per_block = (small ? 99 : number < 90 ? 163 : 227) * 1024;
  }
  return {device};
}

/// $FAKE_CUDA_COMPUTES=1: a launch "computes" ones, and takes a time that depends on its shared memory. For programs
/// that check and measure, such as a tuner.
const bool computes = std::getenv("FAKE_CUDA_COMPUTES") != nullptr;
float last_milliseconds = 1.5F;

State state_at_start() {
  State made;
  made.devices = devices_at_start();
  return made;
}

State state = state_at_start();
std::mutex mutex;
int contexts[max_devices]; // a context is the address of its device's element
thread_local std::vector<void*> current;

/// Ones (bf16) into whatever was filled with 0xFF, as results are before a launch.
void pretend(const fake_cuda::Launch& launch) {
  constexpr unsigned char poison[16] = {255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255};
  constexpr std::uint16_t one = 0x3F80;
  for (const auto& [address, allocation] : state.allocations) {
    auto* const memory = reinterpret_cast<std::uint16_t*>(address);
    if (allocation.first >= sizeof poison && std::memcmp(memory, poison, sizeof poison) == 0)
      std::fill_n(memory, allocation.first / sizeof one, one);
  }
  constexpr float fastest_kibibytes = 42, milliseconds_a_kibibyte = 0.02F;
  last_milliseconds =
      1 + milliseconds_a_kibibyte * std::abs(static_cast<float>(launch.shared_bytes) / 1024 - fastest_kibibytes);
}

int device_of(void* context) { return static_cast<int>(static_cast<int*>(context) - contexts); }
int current_device() { return current.empty() ? -1 : device_of(current.back()); }

/// Records the call; the failure that the test asked for, else success.
int enter(const char* name) {
  const std::lock_guard lock(mutex);
  state.calls.emplace_back(name);
  const auto failure = state.failures.find(name);
  return failure == state.failures.end() ? success : failure->second;
}

/// The same for calls that need a current context.
int enter_with_context(const char* name) {
  const int result = enter(name);
  return result == success && current.empty() ? invalid_context : result;
}

bool valid(int device) { return device >= 0 && device < static_cast<int>(state.devices.size()); }

struct LaunchAttribute {
  int id;
  std::uint32_t padding;
  std::uint32_t value[16];
};

struct LaunchConfig {
  std::uint32_t grid[3], block[3], shared_bytes;
  void* stream;
  LaunchAttribute* attributes;
  std::uint32_t attribute_count;
};

} // namespace

#define ENTER(name)                                                                                                    \
  if (const int failure = enter(name); failure != success)                                                             \
  return failure
#define ENTER_WITH_CONTEXT(name)                                                                                       \
  if (const int failure = enter_with_context(name); failure != success)                                                \
  return failure

extern "C" {

State* fake_cuda_state() { return &state; }

int cuGetErrorName(int error, const char** name) {
  *name = error == 2 ? "CUDA_ERROR_OUT_OF_MEMORY" : error == 222 ? "CUDA_ERROR_UNSUPPORTED_PTX_VERSION" : nullptr;
  return *name == nullptr ? invalid_value : success;
}
int cuGetErrorString(int error, const char** text) {
  *text = error == 2 ? "out of memory" : "another error";
  return success;
}
int cuInit(unsigned) { return enter("cuInit"); }
int cuDriverGetVersion(int* version) {
  ENTER("cuDriverGetVersion");
  *version = state.driver_version;
  return success;
}

int cuDeviceGetCount(int* count) {
  ENTER("cuDeviceGetCount");
  *count = static_cast<int>(state.devices.size());
  return *count == 0 ? no_device : success;
}
int cuDeviceGet(int* device, int ordinal) {
  ENTER("cuDeviceGet");
  *device = ordinal;
  return valid(ordinal) ? success : invalid_value;
}
int cuDeviceGetName(char* name, int capacity, int device) {
  ENTER("cuDeviceGetName");
  std::strncpy(name, state.devices.at(static_cast<std::size_t>(device)).name.c_str(),
               static_cast<std::size_t>(capacity));
  return success;
}
int cuDeviceGetAttribute(int* value, int attribute, int device) {
  ENTER("cuDeviceGetAttribute");
  const auto& facts = state.devices.at(static_cast<std::size_t>(device));
  switch (attribute) {
  case 16:
    *value = facts.multiprocessors;
    return success;
  case 38:
    *value = 50 << 20;
    return success;
  case 75:
    *value = facts.major;
    return success;
  case 76:
    *value = facts.minor;
    return success;
  case 97:
    *value = facts.shared_bytes_per_block;
    return success;
  default:
    return invalid_value;
  }
}
int cuDeviceTotalMem_v2(std::size_t* bytes, int) {
  ENTER("cuDeviceTotalMem_v2");
  *bytes = std::size_t{80} << 30;
  return success;
}

int cuDevicePrimaryCtxRetain(void** context, int device) {
  ENTER("cuDevicePrimaryCtxRetain");
  ++state.retained_contexts[device];
  *context = &contexts[device];
  return success;
}
int cuDevicePrimaryCtxRelease_v2(int device) {
  ENTER("cuDevicePrimaryCtxRelease_v2");
  --state.retained_contexts[device];
  return success;
}
int cuCtxGetCurrent(void** context) {
  ENTER("cuCtxGetCurrent");
  *context = current.empty() ? nullptr : current.back();
  return success;
}
int cuCtxGetDevice(int* device) {
  ENTER_WITH_CONTEXT("cuCtxGetDevice");
  *device = current_device();
  return success;
}
int cuCtxPushCurrent_v2(void* context) {
  ENTER("cuCtxPushCurrent_v2");
  current.push_back(context);
  return success;
}
int cuCtxPopCurrent_v2(void** context) {
  ENTER_WITH_CONTEXT("cuCtxPopCurrent_v2");
  *context = current.back();
  current.pop_back();
  return success;
}

// Libraries, kernels and functions are one handle: a fresh allocation.
int cuLibraryLoadData(void** library, const void* image, void*, void**, unsigned, void*, void**, unsigned) {
  ENTER_WITH_CONTEXT("cuLibraryLoadData");
  *library = std::malloc(1);
  const std::lock_guard lock(mutex);
  state.images.emplace_back(static_cast<const char*>(image));
  ++state.libraries;
  return success;
}
int cuLibraryUnload(void* library) {
  ENTER_WITH_CONTEXT("cuLibraryUnload");
  std::free(library);
  --state.libraries;
  return success;
}
int cuLibraryGetKernel(void** kernel, void* library, const char* name) {
  ENTER_WITH_CONTEXT("cuLibraryGetKernel");
  *kernel = library;
  return *name == 0 ? not_found : success;
}
int cuKernelGetFunction(void** function, void* kernel) {
  ENTER_WITH_CONTEXT("cuKernelGetFunction");
  *function = kernel;
  return success;
}
int cuKernelSetAttribute(int attribute, int value, void*, int) {
  ENTER_WITH_CONTEXT("cuKernelSetAttribute");
  state.shared_byte_limits.push_back(value);
  return attribute == 8 ? success : invalid_value;
}
int cuFuncGetAttribute(int* value, int, void*) {
  ENTER_WITH_CONTEXT("cuFuncGetAttribute");
  *value = 0;
  return success;
}
int cuFuncLoad(void*) {
  ENTER_WITH_CONTEXT("cuFuncLoad");
  ++state.loaded_functions;
  return success;
}
int cuLaunchKernelEx(const LaunchConfig* config, void*, void** parameters, void**) {
  ENTER_WITH_CONTEXT("cuLaunchKernelEx");
  fake_cuda::Launch launch;
  std::memcpy(launch.grid, config->grid, sizeof launch.grid);
  std::memcpy(launch.block, config->block, sizeof launch.block);
  for (std::uint32_t i = 0; i < config->attribute_count; ++i)
    if (config->attributes[i].id == 4)
      std::memcpy(launch.cluster, config->attributes[i].value, sizeof launch.cluster);
  launch.shared_bytes = config->shared_bytes;
  launch.stream = config->stream;
  launch.context_device = current_device();
  if (computes)
    pretend(launch);
  std::memcpy(&launch.first_parameter_word, parameters[0], sizeof launch.first_parameter_word);
  state.launches.push_back(launch);
  return success;
}

int cuTensorMapEncodeTiled(void* map, int type, std::uint32_t rank, void* data, const std::uint64_t* extents,
                           const std::uint64_t* strides, const std::uint32_t* box, const std::uint32_t*, int interleave,
                           int swizzle, int promotion, int fill) {
  ENTER("cuTensorMapEncodeTiled");
  std::memset(map, 0, 128);
  std::memcpy(map, &data, sizeof data);
  state.tensor_maps.push_back({type,
                               {extents, extents + rank},
                               {strides, strides + rank - 1},
                               {box, box + rank},
                               interleave,
                               swizzle,
                               promotion,
                               fill});
  return success;
}

int cuPointerGetAttributes(unsigned count, int* attributes, void** values, std::uint64_t pointer) {
  ENTER("cuPointerGetAttributes");
  unsigned type = 0;
  int ordinal = -2;
  for (const auto& [address, allocation] : state.allocations)
    if (pointer >= address && pointer < address + allocation.first) {
      type = 2;
      ordinal = allocation.second;
    }
  for (unsigned i = 0; i < count; ++i)
    switch (attributes[i]) {
    case 2:
      *static_cast<unsigned*>(values[i]) = type;
      break;
    case 8:
      *static_cast<unsigned*>(values[i]) = 0;
      break;
    case 9:
      *static_cast<int*>(values[i]) = ordinal;
      break;
    default:
      return invalid_value;
    }
  return success;
}
int cuMemAlloc_v2(std::uint64_t* pointer, std::size_t bytes) {
  ENTER_WITH_CONTEXT("cuMemAlloc_v2");
  constexpr std::size_t alignment = 256; // as the driver's
  *pointer =
      reinterpret_cast<std::uint64_t>(std::aligned_alloc(alignment, (bytes + alignment - 1) / alignment * alignment));
  state.allocations[*pointer] = {bytes, current_device()};
  return success;
}
int cuMemFree_v2(std::uint64_t pointer) {
  ENTER_WITH_CONTEXT("cuMemFree_v2");
  state.allocations.erase(pointer);
  std::free(reinterpret_cast<void*>(pointer));
  return success;
}
int cuMemcpyHtoD_v2(std::uint64_t to, const void* from, std::size_t bytes) {
  ENTER_WITH_CONTEXT("cuMemcpyHtoD_v2");
  std::memcpy(reinterpret_cast<void*>(to), from, bytes);
  return success;
}
int cuMemcpyDtoH_v2(void* to, std::uint64_t from, std::size_t bytes) {
  ENTER_WITH_CONTEXT("cuMemcpyDtoH_v2");
  std::memcpy(to, reinterpret_cast<const void*>(from), bytes);
  return success;
}
int cuMemcpyDtoHAsync_v2(void* to, std::uint64_t from, std::size_t bytes, void*) {
  ENTER_WITH_CONTEXT("cuMemcpyDtoHAsync_v2");
  std::memcpy(to, reinterpret_cast<const void*>(from), bytes);
  return success;
}
int cuMemsetD8Async(std::uint64_t to, unsigned char value, std::size_t bytes, void*) {
  ENTER_WITH_CONTEXT("cuMemsetD8Async");
  std::memset(reinterpret_cast<void*>(to), value, bytes);
  return success;
}

int cuStreamIsCapturing(void* stream, int* status) {
  ENTER_WITH_CONTEXT("cuStreamIsCapturing");
  *status = state.capture_status[stream];
  return success;
}
int cuStreamSynchronize(void*) { return enter_with_context("cuStreamSynchronize"); }
int cuThreadExchangeStreamCaptureMode(int* mode) {
  ENTER("cuThreadExchangeStreamCaptureMode");
  thread_local int now = 0;
  std::swap(*mode, now);
  return success;
}
int cuEventCreate(void** event, unsigned) {
  ENTER_WITH_CONTEXT("cuEventCreate");
  *event = std::malloc(1);
  return success;
}
int cuEventDestroy_v2(void* event) {
  ENTER_WITH_CONTEXT("cuEventDestroy_v2");
  std::free(event);
  return success;
}
int cuEventRecord(void*, void*) { return enter_with_context("cuEventRecord"); }
int cuEventSynchronize(void*) { return enter_with_context("cuEventSynchronize"); }
int cuEventElapsedTime(float* milliseconds, void*, void*) {
  ENTER_WITH_CONTEXT("cuEventElapsedTime");
  *milliseconds = last_milliseconds;
  return success;
}
}
