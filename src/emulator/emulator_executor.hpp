// The launch interface on the CPU.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <mutex>
#include <string>

#include "driver/executor.hpp"
#include "driver/kernel_table.hpp"
#include "emulator/emulated_kernel.hpp"
#include "emulator/launch.hpp"
#include <tilewright/emulator.hpp>

namespace tilewright::emulator {

class EmulatorExecutor final : public Executor {
public:
  /// Throws unsupported for an architecture that no kernel is compiled for.
  explicit EmulatorExecutor(EmulatorOptions options);

  [[nodiscard]] const DeviceDescription& device() const noexcept override { return device_; }
  std::shared_ptr<const Kernel> kernel(const Spec& spec, Stream stream) override;
  void launch(const Kernel& kernel, const LaunchShape& shape, const void* parameters, std::size_t parameter_bytes,
              Stream stream) override;
  TensorMap encode(const TensorMapRequest& request) override;
  void check_pointer(const void* pointer, const char* name) const override;
  [[nodiscard]] CacheStatistics cache_statistics() const override; // of its folder of kernels for the host
  void read_back(void* host, const void* device, std::size_t bytes, Stream stream) override;

  /// A kernel of the caller's own: source as codegen generates it for Target::emulator. For tests.
  [[nodiscard]] std::shared_ptr<const EmulatedKernel> kernel_from_source(const std::string& name,
                                                                         const std::string& source) const;

private:
  EmulatorOptions options_;
  DeviceDescription device_;
  KernelFolder folder_;
  KernelTable kernels_;
  MultiprocessorPool pool_;
  std::atomic<std::uint64_t> disk_hits_{0}, compiles_{0};
};

} // namespace tilewright::emulator
