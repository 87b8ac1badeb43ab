#include "driver/cuda_executor.hpp"

#include <array>
#include <mutex>
#include <utility>

#include <fmt/format.h>
#include <fmt/ranges.h>

#include "compiler/nvrtc.hpp"
#include "driver/cuda_device.hpp"
#include "driver/cuda_kernel.hpp"
#include "driver/kernel_table.hpp"
#include "driver/tensor_map.hpp"
#include <tilewright/error.hpp>

namespace tilewright {
namespace {

using cuda::ContextGuard;
using cuda::CudaDevice;

bool can_load(const std::shared_ptr<const CudaDevice>& device, const cache::CacheEntry& entry) {
  try {
    const cuda::CudaKernel kernel(device, entry);
    return true;
  } catch (const Error&) {
    return false;
  }
}

cache::Toolchain with_device(cache::Toolchain toolchain, const std::shared_ptr<const CudaDevice>& device) {
  toolchain.loadable = [device](const cache::CacheEntry& entry) { return can_load(device, entry); };
  return toolchain;
}

class CudaExecutor final : public Executor {
public:
  CudaExecutor(std::shared_ptr<const CudaDevice> device, const CacheOptions& options,
               support::MessageCallback on_message, cache::Toolchain toolchain)
      : device_(std::move(device)), cache_(options, std::move(on_message), with_device(std::move(toolchain), device_)) {
  }

  [[nodiscard]] const DeviceDescription& device() const noexcept override { return device_->description(); }

  std::shared_ptr<const Kernel> kernel(const Spec& spec, Stream stream) override {
    if (auto loaded = kernels_.find(spec))
      return loaded;
    refuse_capture(*device_, stream, fmt::format("the kernel of {} is not prepared", to_string(spec.problem)));
    const std::lock_guard one_at_a_time(loading_);
    if (auto loaded = kernels_.find(spec))
      return loaded;
    auto kernel = std::make_shared<const cuda::CudaKernel>(device_, *cache_.get(spec));
    kernels_.insert(spec, kernel);
    return kernel;
  }

  void launch(const Kernel& kernel, const LaunchShape& shape, const void* parameters, std::size_t /*parameter_bytes*/,
              Stream stream) override {
    cuda::LaunchAttribute cluster{cuda::LaunchAttributeId::cluster_dimension,
                                  {shape.cluster.x, shape.cluster.y, shape.cluster.z}};
    const bool clustered = shape.cluster.x * shape.cluster.y * shape.cluster.z > 1;
    const cuda::LaunchConfig config{shape.grid.x,       shape.grid.y,  shape.grid.z,
                                    shape.block.x,      shape.block.y, shape.block.z,
                                    shape.shared_bytes, stream,        clustered ? &cluster : nullptr,
                                    clustered ? 1U : 0U};
    // The driver reads as many bytes as the kernel's one parameter has, before it returns.
    void* values[] = {const_cast<void*>(parameters)};
    const ContextGuard guard(*device_);
    const cuda::Function function = static_cast<const cuda::CudaKernel&>(kernel).function();
    const cuda::Result result = device_->api().launch_kernel(&config, function, values, nullptr);
    if (result != cuda::Result::success)
      device_->check(result, fmt::format("cuLaunchKernelEx (grid {}x{}x{}, block {}, cluster {}, {} bytes of shared "
                                         "memory)",
                                         shape.grid.x, shape.grid.y, shape.grid.z, shape.block.x, shape.cluster.x,
                                         shape.shared_bytes));
  }

  TensorMap encode(const TensorMapRequest& request) override {
    const ContextGuard guard(*device_); // the driver encodes for the current context's device, and refuses without one
    return cuda::encode(device_->api(), request);
  }

  void check_pointer(const void* pointer, const char* name) const override;

  [[nodiscard]] CacheStatistics cache_statistics() const override { return cache_.statistics(); }

  void read_back(void* host, const void* data, std::size_t bytes, Stream stream) override {
    refuse_capture(*device_, stream, "reading device memory back would synchronise it");
    const ContextGuard guard(*device_);
    device_->check(
        device_->api().memory_copy_to_host_async(host, reinterpret_cast<cuda::DevicePointer>(data), bytes, stream),
        "cuMemcpyDtoHAsync");
    device_->check(device_->api().stream_synchronize(stream), "cuStreamSynchronize");
  }

private:
  std::shared_ptr<const CudaDevice> device_;
  cache::KernelCache cache_;
  KernelTable kernels_;
  std::mutex loading_; // NVRTC gains nothing from threads, so misses wait for each other
};

struct PointerFacts {
  cuda::MemoryType type = cuda::MemoryType::unknown;
  unsigned managed = 0;
  int ordinal = -1;
};

PointerFacts facts_of(const CudaDevice& device, const void* pointer) {
  PointerFacts facts;
  if (pointer == nullptr)
    return facts;
  std::array attributes{cuda::PointerAttribute::memory_type, cuda::PointerAttribute::is_managed,
                        cuda::PointerAttribute::device_ordinal};
  std::array<void*, attributes.size()> values{&facts.type, &facts.managed, &facts.ordinal};
  const ContextGuard guard(device);
  device.check(device.api().pointer_get_attributes(static_cast<unsigned>(attributes.size()), attributes.data(),
                                                   values.data(), reinterpret_cast<cuda::DevicePointer>(pointer)),
               "cuPointerGetAttributes");
  return facts;
}

void CudaExecutor::check_pointer(const void* pointer, const char* name) const {
  const PointerFacts facts = facts_of(*device_, pointer);
  const int here = device().ordinal;
  const bool registered_host = facts.type == cuda::MemoryType::host;
  if (facts.managed != 0 || registered_host || (facts.type == cuda::MemoryType::device && facts.ordinal == here))
    return;
  const std::string kind = pointer == nullptr                       ? "no memory"
                           : facts.type == cuda::MemoryType::device ? fmt::format("memory of device {}", facts.ordinal)
                                                                    : "host memory that CUDA does not know";
  throw Error(ErrorCode::invalid_argument, fmt::format("{} is at {}: {}", name, fmt::ptr(pointer), kind),
              fmt::format("memory of device {}, managed memory and host memory registered with CUDA are allowed", here),
              fmt::format("copy {} to device {}", name, here));
}

} // namespace

std::shared_ptr<Executor> make_cuda_executor(int device, const CacheOptions& options,
                                             support::MessageCallback on_message) {
  return make_cuda_executor(std::make_shared<const CudaDevice>(device), options, std::move(on_message));
}

std::shared_ptr<Executor> make_cuda_executor(std::shared_ptr<const cuda::CudaDevice> device,
                                             const CacheOptions& options, support::MessageCallback on_message,
                                             cache::Toolchain toolchain) {
  compiler::set_driver_major(device->api().driver_version / 1000);
  return std::make_shared<CudaExecutor>(std::move(device), options, std::move(on_message), std::move(toolchain));
}

} // namespace tilewright
