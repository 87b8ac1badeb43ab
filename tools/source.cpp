// tilewright source: the CUDA source of a problem's kernel.
#include <cstdio>
#include <memory>

#include <CLI/CLI.hpp>
#include <fmt/format.h>

#include "codegen/source.hpp"
#include "commands.hpp"
#include "options.hpp"
#include "targets.hpp"

namespace tilewright::tools {
namespace {

struct SourceOptions {
  std::string problem, architecture = "sm_80", schedule;
  bool emulator = false;
};

void print_source(const SourceOptions& options) {
  const Problem problem = problem_option(options.problem);
  const std::vector<Problem> variants = closed_variants(problem);
  const std::vector<Architecture> architectures = target_architectures(options.architecture);
  if (architectures.size() != 1)
    throw UsageError(fmt::format("--arch is '{}'", options.architecture), "one architecture is allowed",
                     "ask once for each");
  if (variants.size() > 1) {
    fmt::print(stderr, "tilewright: this problem has {} variants; the source is that of\n", variants.size());
    for (const Problem& variant : variants)
      fmt::print(stderr, "  {} {}\n", &variant == &variants.front() ? "this:" : " not:", to_string(variant));
  }
  const Spec spec = target_spec(variants.front(), architectures.front(), schedule_option(options.schedule));
  const auto target = options.emulator ? codegen::Target::emulator : codegen::Target::cuda;
  fmt::print("// {}\n{}", to_string(spec), codegen::generate(spec, target).text);
}

} // namespace

void add_source(CLI::App& application) {
  auto* const command = application.add_subcommand("source", "Print a kernel's CUDA source: one self-contained file");
  const auto options = std::make_shared<SourceOptions>();
  command->add_option("problem", options->problem, "The problem's line")->required();
  command->add_option("--arch", options->architecture, "GPU architecture")->capture_default_str();
  command->add_option("--schedule", options->schedule, "Insist on a schedule");
  command->add_flag("--emulator", options->emulator, "The source that the emulator compiles with the host's compiler");
  command->callback([options] { print_source(*options); });
}

} // namespace tilewright::tools
