// Compiling many kernels into the cache: what compile and warmup share.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "options.hpp"
#include <tilewright/schedule.hpp>

namespace tilewright::tools {

/// A closed problem on a GPU of this architecture.
struct CompileTarget {
  Problem problem;
  Architecture gpu;
};

/// Every variant of every problem on every architecture.
std::vector<CompileTarget> compile_targets(const std::vector<Problem>& problems,
                                           const std::vector<Architecture>& architectures);

struct CompileRun {
  std::vector<CompileTarget> targets;
  std::optional<Schedule> schedule;
  CacheChoice cache;
  unsigned workers = 1; // processes
  bool json = false;    // one object a line and kernel
  bool table = true;    // a row a kernel; otherwise only the summary
};

/// Compiles what the cache does not have, and prints. A kernel that fails does not stop the others; then throws the one
/// kernel's error, or how many failed.
void run_compiles(const CompileRun& run);

} // namespace tilewright::tools
