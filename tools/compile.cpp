// tilewright compile and warmup: kernels into the cache, with what ptxas says of them. No GPU is needed.
#include <memory>
#include <thread>

#include <CLI/CLI.hpp>
#include <fmt/format.h>

#include "commands.hpp"
#include "compile_run.hpp"
#include "manifest.hpp"
#include "options.hpp"
#include "targets.hpp"

namespace tilewright::tools {
namespace {

struct CompileOptions {
  std::vector<std::string> problems;
  std::filesystem::path manifest;
  std::string architectures, schedule;
  unsigned workers = 1;
  CacheChoice cache;
  bool json = false;

  void add_to(CLI::App& command) {
    command.add_option("--jobs", workers, "Processes that compile side by side")
        ->check(CLI::PositiveNumber)
        ->capture_default_str();
    command.add_flag("--json", json, "One JSON object a line and kernel");
    cache.add_to(command);
  }
};

void compile(const CompileOptions& options) {
  std::vector<Problem> problems;
  for (const std::string& line : options.problems)
    problems.push_back(problem_option(line));
  run_compiles({.targets = compile_targets(problems, target_architectures(options.architectures)),
                .schedule = schedule_option(options.schedule),
                .cache = options.cache,
                .workers = options.workers,
                .json = options.json});
}

void warm_up(const CompileOptions& options) {
  const Manifest manifest = read_manifest(options.manifest);
  const auto architectures =
      options.architectures.empty() ? manifest.architectures : architectures_option(options.architectures);
  run_compiles({.targets = compile_targets(manifest.problems, architectures),
                .schedule = std::nullopt,
                .cache = options.cache,
                .workers = options.workers,
                .json = options.json,
                .table = false});
}

} // namespace

void add_compile(CLI::App& application) {
  auto* const command = application.add_subcommand("compile", "Compile kernels into the cache; no GPU is needed");
  const auto options = std::make_shared<CompileOptions>();
  command->add_option("problems", options->problems, "Problems' lines; what they leave open is compiled in all ways")
      ->required();
  command->add_option("--arch", options->architectures, "sm_80,sm_90a,... (default: this machine's GPU)");
  command->add_option("--schedule", options->schedule, "Insist on a schedule");
  options->add_to(*command);
  command->callback([options] { compile(*options); });
}

void add_warmup(CLI::App& application) {
  auto* const command =
      application.add_subcommand("warmup", "Compile a manifest's kernels into the cache; no GPU is needed");
  const auto options = std::make_shared<CompileOptions>();
  options->workers = std::max(1U, std::thread::hardware_concurrency());
  command->add_option("manifest", options->manifest, "JSON: {\"architectures\": [...], \"problems\": [...]}")
      ->required();
  command->add_option("--arch", options->architectures, "Instead of the manifest's architectures");
  options->add_to(*command);
  command->callback([options] { warm_up(*options); });
}

} // namespace tilewright::tools
