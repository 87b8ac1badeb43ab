// A kernel compiled for the host and opened.
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <string>

#include "driver/executor.hpp"

namespace tilewright::emulator {

/// What kernels export (templates/emulator/thread.cuh).
using KernelEntry = void (*)(const void* arguments);

class EmulatedKernel final : public Kernel {
public:
  /// Opens a shared library. Throws compile_failed where it is none, or has no kernel.
  EmulatedKernel(std::string name, const std::filesystem::path& library, KernelOrigin origin, std::string log);
  ~EmulatedKernel() override;
  EmulatedKernel(const EmulatedKernel&) = delete;
  EmulatedKernel& operator=(const EmulatedKernel&) = delete;

  [[nodiscard]] const KernelReport& report() const noexcept override { return report_; }
  [[nodiscard]] KernelOrigin origin() const noexcept override { return origin_; }

  [[nodiscard]] const std::string& name() const noexcept { return name_; }
  [[nodiscard]] KernelEntry entry() const noexcept { return entry_; }
  // Its launch bounds: threads of a block, and blocks on one multiprocessor.
  [[nodiscard]] std::uint32_t most_threads() const noexcept { return most_threads_; }
  [[nodiscard]] std::uint32_t blocks_per_processor() const noexcept { return blocks_per_processor_; }
  [[nodiscard]] bool uses_copy_engine() const noexcept { return uses_copy_engine_; }
  [[nodiscard]] const std::string& log() const noexcept { return log_; } // what the compiler said of it

private:
  [[nodiscard]] void* symbol(const char* symbol) const;
  [[nodiscard]] std::uint32_t number(const char* symbol) const;

  std::string name_, log_;
  KernelOrigin origin_;
  KernelReport report_;
  void* library_ = nullptr;
  KernelEntry entry_ = nullptr;
  std::uint32_t most_threads_ = 0, blocks_per_processor_ = 0;
  bool uses_copy_engine_ = false;
};

/// Compiled kernels on disk: <folder>/<hash of all that they depend on>.so. Thread-safe, and safe between processes.
class KernelFolder {
public:
  explicit KernelFolder(std::filesystem::path folder) : folder_(std::move(folder)) {}

  /// $TILEWRIGHT_CACHE, else $XDG_CACHE_HOME/tilewright, else ~/.cache/tilewright, and there "emulator".
  static std::filesystem::path default_folder();

  /// The kernel of this emulator source, compiled where the folder does not have it. Throws unsupported,
  /// compile_failed, and invalid_argument where the folder is not private.
  [[nodiscard]] std::shared_ptr<const EmulatedKernel> open(const std::string& name, const std::string& source,
                                                           bool poison_registers) const;

private:
  std::filesystem::path folder_;
};

} // namespace tilewright::emulator
