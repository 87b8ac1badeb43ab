// tilewright compile: kernels into the cache, with what ptxas says of them.
#include <chrono>
#include <memory>
#include <optional>

#include <CLI/CLI.hpp>
#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "cache/cache.hpp"
#include "commands.hpp"
#include "options.hpp"
#include "progress.hpp"
#include "schedule/feasibility.hpp"
#include "table.hpp"
#include "targets.hpp"

namespace tilewright::tools {
namespace {

struct CompileOptions {
  std::vector<std::string> problems;
  std::string architectures, schedule;
  CacheChoice cache;
  bool json = false;
};

struct Target {
  Problem problem;
  Architecture gpu;
};

std::vector<Target> targets_of(const CompileOptions& options) {
  std::vector<Target> targets;
  const std::vector<Architecture> architectures = target_architectures(options.architectures);
  for (const std::string& line : options.problems)
    for (const Problem& variant : closed_variants(problem_option(line)))
      for (const Architecture& architecture : architectures)
        targets.push_back({variant, architecture});
  return targets;
}

struct Compiled {
  Spec spec;
  std::shared_ptr<const cache::CacheEntry> entry;
  bool cached;

  [[nodiscard]] std::int64_t shared_bytes() const {
    return entry->report.static_shared_bytes + schedule::shared_memory_bytes(spec.problem, spec.schedule);
  }
};

Compiled compile_one(cache::KernelCache& kernels, const Spec& spec) {
  if (auto found = kernels.find(spec))
    return {spec, std::move(found), true};
  return {spec, kernels.get(spec), false};
}

nlohmann::json to_json(const Compiled& compiled) {
  const cache::CacheEntry& entry = *compiled.entry;
  return {{"problem", to_string(compiled.spec.problem)},
          {"arch", to_string(compiled.spec.architecture)},
          {"schedule", to_string(compiled.spec.schedule)},
          {"key", support::to_string(entry.key)},
          {"cached", compiled.cached},
          {"compile_ms", entry.compile_milliseconds},
          {"registers", entry.report.registers},
          {"spill_bytes", entry.report.spill_bytes},
          {"shared_memory_bytes", compiled.shared_bytes()},
          {"cubin_bytes", entry.cubin.size()},
          {"compiler", entry.compiler_version}};
}

std::vector<std::string> to_row(const Compiled& compiled) {
  const cache::CacheEntry& entry = *compiled.entry;
  return {to_string(compiled.spec.problem),
          to_string(compiled.spec.architecture),
          compiled.cached ? "hit" : fmt::format("{:.0f} ms", entry.compile_milliseconds),
          fmt::to_string(entry.report.registers),
          fmt::to_string(entry.report.spill_bytes),
          bytes_text(static_cast<double>(compiled.shared_bytes())),
          bytes_text(static_cast<double>(entry.cubin.size())),
          support::to_string(entry.key)};
}

void compile(const CompileOptions& options) {
  const std::vector<Target> targets = targets_of(options);
  const std::optional<Schedule> schedule = schedule_option(options.schedule);
  cache::KernelCache kernels(options.cache.options(), print_warning);
  Table table({"problem", "arch", "compiled", "registers", "spills", "shared", "cubin", "key"});
  std::optional<Error> last_failure;
  std::size_t failures = 0;
  {
    Progress progress("compiling", targets.size());
    for (const auto& [problem, gpu] : targets) {
      try {
        const Compiled compiled = compile_one(kernels, target_spec(problem, gpu, schedule));
        if (options.json)
          fmt::print("{}\n", to_json(compiled).dump());
        else
          table.add(to_row(compiled));
      } catch (const Error& error) {
        last_failure = error;
        ++failures;
        if (targets.size() > 1)
          print_warning(fmt::format("{} on {} failed: {}", to_string(problem), to_string(gpu), error.what()));
      }
      progress.step();
    }
  }
  if (!options.json && failures < targets.size())
    fmt::print("{}", table.text());
  if (!last_failure)
    return;
  if (targets.size() == 1)
    throw Error(*last_failure);
  throw Error(last_failure->code(), fmt::format("{} of {} kernels were not compiled", failures, targets.size()),
              "every kernel compiles", "see the warnings above");
}

} // namespace

void add_compile(CLI::App& application) {
  auto* const command = application.add_subcommand("compile", "Compile kernels into the cache; no GPU is needed");
  const auto options = std::make_shared<CompileOptions>();
  command->add_option("problems", options->problems, "Problems' lines; what they leave open is compiled in all ways")
      ->required();
  command->add_option("--arch", options->architectures, "sm_80,sm_90a,... (default: this machine's GPU)");
  command->add_option("--schedule", options->schedule, "Insist on a schedule");
  command->add_flag("--json", options->json, "One JSON object a line and kernel");
  options->cache.add_to(*command);
  command->callback([options] { compile(*options); });
}

} // namespace tilewright::tools
