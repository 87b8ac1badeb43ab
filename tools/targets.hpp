// The kernels that a command means: problems, in all their variants, on architectures.
#pragma once

#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include <tilewright/schedule.hpp>

namespace tilewright::tools {

/// The architectures of "sm_80,sm_90a"; of this machine's first GPU where the text is empty. Throws UsageError where
/// there is none either.
std::vector<Architecture> target_architectures(const std::string& text);

/// The spec that a runtime on such a GPU uses for a closed problem: the given schedule, else the tuned one, else the
/// default. The spec's
/// architecture is the one its kernel family is compiled for: sm_90 and sm_90a name the same GPU. Throws unsupported.
Spec target_spec(const Problem& problem, const Architecture& gpu, const std::optional<Schedule>& schedule,
                 const std::filesystem::path& cache_folder = {});

} // namespace tilewright::tools
