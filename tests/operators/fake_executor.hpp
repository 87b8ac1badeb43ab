// An executor that computes nothing: it records what the operators ask of it. Memory is the host's.
#pragma once

#include <cstring>
#include <mutex>
#include <set>
#include <string>
#include <vector>

#include <doctest/doctest.h>

#include "driver/executor.hpp"
#include <tilewright/error.hpp>

namespace tilewright::testing {

class FakeKernel final : public Kernel {
public:
  explicit FakeKernel(const Spec& kernel_spec) : spec(kernel_spec) {}
  [[nodiscard]] const KernelReport& report() const noexcept override { return report_; }
  [[nodiscard]] KernelOrigin origin() const noexcept override { return KernelOrigin::compiled; }

  const Spec spec;

private:
  KernelReport report_;
};

struct RecordedLaunch {
  const Kernel* kernel; // to compare: it lives as long as its executor
  Spec spec;
  LaunchShape shape;
  std::vector<std::byte> parameters;
  Stream stream;

  template <typename Parameters> [[nodiscard]] Parameters as() const {
    REQUIRE(parameters.size() == sizeof(Parameters));
    Parameters result;
    std::memcpy(&result, parameters.data(), sizeof(result));
    return result;
  }
};

/// Thread-safe in what the operators call; read the records when they are done.
class FakeExecutor final : public Executor {
public:
  explicit FakeExecutor(Architecture architecture = {8, 0, 0}) {
    device_.name = "fake";
    device_.architecture = architecture;
    device_.multiprocessors = 100;
    device_.shared_bytes_per_block = 163 * 1024;
  }

  [[nodiscard]] const DeviceDescription& device() const noexcept override { return device_; }

  std::shared_ptr<const Kernel> kernel(const Spec& spec, Stream) override {
    const std::lock_guard lock(mutex_);
    asked.push_back(spec);
    return kernels_.emplace_back(std::make_shared<FakeKernel>(spec));
  }

  void launch(const Kernel& kernel, const LaunchShape& shape, const void* parameters, std::size_t bytes,
              Stream stream) override {
    const auto* first = static_cast<const std::byte*>(parameters);
    const std::lock_guard lock(mutex_);
    launches.push_back({&kernel, static_cast<const FakeKernel&>(kernel).spec, shape, {first, first + bytes}, stream});
  }

  TensorMap encode(const TensorMapRequest& request) override {
    const std::lock_guard lock(mutex_);
    maps.push_back(request);
    return {};
  }

  void check_pointer(const void* pointer, const char* name) const override {
    if (foreign.contains(pointer))
      throw Error(ErrorCode::invalid_argument, std::string(name) + " is foreign memory", "memory of the fake device",
                  "copy it");
  }

  void read_back(void* host, const void* device, std::size_t bytes, Stream) override {
    std::memcpy(host, device, bytes);
  }

  std::set<const void*> foreign; // what check_pointer() refuses
  std::vector<Spec> asked;       // by kernel()
  std::vector<RecordedLaunch> launches;
  std::vector<TensorMapRequest> maps;

private:
  DeviceDescription device_;
  std::mutex mutex_;
  std::vector<std::shared_ptr<const FakeKernel>> kernels_;
};

} // namespace tilewright::testing
