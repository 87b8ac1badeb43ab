#include "targets.hpp"

#include "cache/tuned_schedules.hpp"
#include "driver/cuda_device.hpp"
#include "options.hpp"
#include "schedule/heuristic.hpp"

namespace tilewright::tools {

std::vector<Architecture> target_architectures(const std::string& text) {
  if (!text.empty())
    return architectures_option(text);
  try {
    return {cuda::describe_device(cuda::open_api(), 0).architecture};
  } catch (const Error& error) {
    throw UsageError("--arch is not given, and " + error.problem(), "architectures such as sm_80,sm_90a are allowed",
                     "add --arch sm_80");
  }
}

Spec target_spec(const Problem& problem, const Architecture& gpu, const std::optional<Schedule>& schedule,
                 const std::filesystem::path& cache_folder) {
  if (schedule)
    return schedule::insisted_spec(problem, gpu, *schedule);
  const schedule::TunedTable tuned = cache::tuned_schedules(gpu, cache_folder, print_warning);
  return schedule::default_spec(problem, gpu, Family::automatic, &tuned);
}

} // namespace tilewright::tools
