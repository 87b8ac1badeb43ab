#include "driver/cuda_kernel.hpp"

#include <utility>

#include <fmt/format.h>

#include <tilewright/error.hpp>

namespace tilewright::cuda {
namespace {

/// Lets this thread load code while other threads capture graphs, without disturbing their captures.
class RelaxedCapture {
public:
  explicit RelaxedCapture(const Api& api) noexcept : api_(api) { api_.exchange_capture_mode(&mode_); }
  ~RelaxedCapture() { api_.exchange_capture_mode(&mode_); }
  RelaxedCapture(const RelaxedCapture&) = delete;
  RelaxedCapture& operator=(const RelaxedCapture&) = delete;

private:
  const Api& api_;
  CaptureMode mode_ = CaptureMode::relaxed;
};

bool is_foreign_code(Result result) {
  return result == Result::invalid_image || result == Result::no_binary_for_gpu || result == Result::invalid_ptx ||
         result == Result::unsupported_ptx_version;
}

Library load(const CudaDevice& device, const cache::CacheEntry& entry) {
  const Api& api = device.api();
  Library library = nullptr;
  const Result result = api.library_load_data(&library, entry.cubin.data(), nullptr, nullptr, 0, nullptr, nullptr, 0);
  if (is_foreign_code(result)) {
    const int driver_major = api.driver_version / 1000;
    throw Error(
        ErrorCode::driver_error,
        fmt::format("the driver (CUDA {}) does not load the kernel of {}, compiled by {}, on {} ({}): {}",
                    version_text(api.driver_version), entry.spec, entry.compiler_identity, device.description().name,
                    to_string(device.description().architecture), describe(api, result)),
        fmt::format("code for this GPU's architecture, from an NVRTC of CUDA {} or older, is allowed", driver_major),
        fmt::format("install nvidia-cuda-nvrtc-cu{} and name its library in $TILEWRIGHT_NVRTC, or update the "
                    "driver",
                    driver_major));
  }
  device.check(result, fmt::format("cuLibraryLoadData of {}", entry.spec));
  return library;
}

} // namespace

CudaKernel::CudaKernel(std::shared_ptr<const CudaDevice> device, const cache::CacheEntry& entry)
    : device_(std::move(device)), report_(entry.report), origin_(entry.origin) {
  const Api& api = device_->api();
  const ContextGuard guard(*device_);
  const RelaxedCapture relaxed(api);
  library_ = load(*device_, entry);
  try {
    KernelHandle kernel = nullptr;
    device_->check(api.library_get_kernel(&kernel, library_, entry.kernel_name.c_str()),
                   fmt::format("cuLibraryGetKernel of {}", entry.kernel_name));
    const int shared_bytes = device_->description().shared_bytes_per_block - report_.static_shared_bytes;
    device_->check(
        api.kernel_set_attribute(FunctionAttribute::max_dynamic_shared_bytes, shared_bytes, kernel, device_->handle()),
        fmt::format("cuKernelSetAttribute, {} bytes of dynamic shared memory", shared_bytes));
    device_->check(api.kernel_get_function(&function_, kernel), "cuKernelGetFunction");
    // Lazy loading would put this off until the first launch, where it breaks a capture. Drivers before 12.4 load
    // a function when they are asked about it.
    int registers = 0;
    device_->check(api.function_load != nullptr
                       ? api.function_load(function_)
                       : api.function_get_attribute(&registers, FunctionAttribute::registers, function_),
                   "cuFuncLoad");
  } catch (...) {
    api.library_unload(library_);
    throw;
  }
}

CudaKernel::~CudaKernel() {
  const ContextGuard guard(*device_);
  device_->api().library_unload(library_);
}

} // namespace tilewright::cuda
