// Runs all thread blocks of a launch on host threads.
#pragma once

#include <cstddef>
#include <memory>
#include <mutex>
#include <vector>

#include "emulator/launch_plan.hpp"

namespace tilewright::emulator {

class Multiprocessor;

/// Multiprocessors that no launch is using: their stacks are costly to make. Thread-safe.
class MultiprocessorPool {
public:
  MultiprocessorPool();
  ~MultiprocessorPool();

  /// One that can run clusters of so many threads.
  std::unique_ptr<Multiprocessor> take(std::size_t threads);
  void give_back(std::unique_ptr<Multiprocessor> multiprocessor);

private:
  std::mutex mutex_;
  std::vector<std::unique_ptr<Multiprocessor>> idle_;
};

/// Runs the launch on so many host threads, the calling one among them, and returns when all has finished.
/// Returns what all thread blocks did. Throws the error of the failing cluster with the lowest index: what is thrown
/// does not depend on the host threads.
EmulatorCounters run_launch(const LaunchPlan& plan, MultiprocessorPool& pool, int host_threads);

} // namespace tilewright::emulator
