// Work that does not scale with threads (NVRTC serialises), spread over processes.
#pragma once

#include <cstddef>
#include <functional>
#include <optional>
#include <string>

namespace tilewright::tools {

/// Calls work(job) for every job in 0 .. jobs - 1, each once, in one of `workers` forked processes, and done(job,
/// result) in this one, in the order in which they finish. A result is nothing where the worker died over the job (too
/// little memory, a crash of the compiler); the others go on. One worker: work runs in this process.
///
/// Call before this process uses the CUDA driver, which no forked child can. Throws internal where processes cannot be
/// made, or all of them died with jobs left.
void run_in_processes(std::size_t jobs, unsigned workers, const std::function<std::string(std::size_t)>& work,
                      const std::function<void(std::size_t, std::optional<std::string>)>& done);

} // namespace tilewright::tools
