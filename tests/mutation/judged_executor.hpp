// The emulator, with kernels that are compiled once for all executors and remembered by name.
#pragma once

#include <filesystem>
#include <future>
#include <map>
#include <memory>
#include <mutex>
#include <set>
#include <string>
#include <utility>

#include "codegen/source.hpp"
#include "emulator/emulator_executor.hpp"

namespace tilewright::mutation {

/// Compiled kernels by spec. Thread-safe; different kernels compile at the same time.
class CompiledKernels {
public:
  explicit CompiledKernels(std::filesystem::path folder) : folder_(std::move(folder)) {}

  std::shared_ptr<const emulator::EmulatedKernel> find(const Spec& spec) {
    const std::string name = to_string(spec);
    std::promise<std::shared_ptr<const emulator::EmulatedKernel>> promise;
    const auto mine = promise.get_future().share();
    {
      std::unique_lock lock(mutex_);
      const auto [place, is_new] = kernels_.try_emplace(name, mine);
      if (!is_new) {
        const auto theirs = place->second;
        lock.unlock();
        return theirs.get();
      }
      templates_.insert(std::string(codegen::kernel_name(spec)) + "_" + std::string(to_string(spec.schedule.family)));
    }
    try {
      EmulatorOptions options;
      options.folder = folder_;
      promise.set_value(emulator::EmulatorExecutor(options).kernel_from_source(
          name, codegen::generate(spec, codegen::Target::emulator).text));
    } catch (...) {
      promise.set_exception(std::current_exception());
    }
    return mine.get();
  }

  /// The kernel templates of all that was asked for: "attention_forward_sm80".
  [[nodiscard]] const std::set<std::string>& templates() const { return templates_; }

private:
  std::filesystem::path folder_;
  std::mutex mutex_;
  std::map<std::string, std::shared_future<std::shared_ptr<const emulator::EmulatedKernel>>> kernels_;
  std::set<std::string> templates_;
};

class JudgedExecutor final : public Executor {
public:
  JudgedExecutor(const EmulatorOptions& options, CompiledKernels& kernels) : emulator_(options), kernels_(kernels) {}

  [[nodiscard]] const DeviceDescription& device() const noexcept override { return emulator_.device(); }
  std::shared_ptr<const Kernel> kernel(const Spec& spec, Stream) override { return kernels_.find(spec); }
  void launch(const Kernel& kernel, const LaunchShape& shape, const void* parameters, std::size_t parameter_bytes,
              Stream stream) override {
    emulator_.launch(kernel, shape, parameters, parameter_bytes, stream);
  }
  TensorMap encode(const TensorMapRequest& request) override { return emulator_.encode(request); }
  void check_pointer(const void* pointer, const char* name) const override { emulator_.check_pointer(pointer, name); }
  void read_back(void* host, const void* device, std::size_t bytes, Stream stream) override {
    emulator_.read_back(host, device, bytes, stream);
  }

private:
  emulator::EmulatorExecutor emulator_;
  CompiledKernels& kernels_;
};

} // namespace tilewright::mutation
