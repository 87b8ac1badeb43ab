#include "compile_run.hpp"

#include <chrono>
#include <cstdio>

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "cache/cache.hpp"
#include "progress.hpp"
#include "schedule/feasibility.hpp"
#include "table.hpp"
#include "targets.hpp"
#include "worker_pool.hpp"

namespace tilewright::tools {
namespace {

nlohmann::json describe(const Spec& spec, const cache::CacheEntry& entry, bool cached) {
  return {{"problem", to_string(spec.problem)},
          {"arch", to_string(spec.architecture)},
          {"schedule", to_string(spec.schedule)},
          {"key", support::to_string(entry.key)},
          {"cached", cached},
          {"compile_ms", entry.compile_milliseconds},
          {"registers", entry.report.registers},
          {"spill_bytes", entry.report.spill_bytes},
          {"shared_memory_bytes",
           entry.report.static_shared_bytes + schedule::shared_memory_bytes(spec.problem, spec.schedule)},
          {"cubin_bytes", entry.cubin.size()},
          {"compiler", entry.compiler_version}};
}

nlohmann::json describe(const CompileTarget& target, const Error& error) {
  return {{"problem", to_string(target.problem)},
          {"arch", to_string(target.gpu)},
          {"error",
           {{"code", to_string(error.code())},
            {"problem", error.problem()},
            {"allowed", error.allowed()},
            {"remedy", error.remedy()}}}};
}

nlohmann::json describe_lost(const CompileTarget& target) {
  return describe(target, {ErrorCode::internal, "the process that compiled it died", "compilers end by themselves",
                           "see whether the machine has too little memory; use fewer --jobs"});
}

nlohmann::json compile_one(cache::KernelCache& kernels, const CompileTarget& target, const CompileRun& run) {
  try {
    const Spec spec = target_spec(target.problem, target.gpu, run.schedule, run.cache.folder);
    const auto entry = kernels.get(spec);
    return describe(spec, *entry, entry->origin != KernelOrigin::compiled);
  } catch (const Error& error) {
    return describe(target, error);
  }
}

std::vector<std::string> to_row(const nlohmann::json& kernel) {
  return {kernel.at("problem"),
          kernel.at("arch"),
          kernel.at("cached").get<bool>() ? "hit" : fmt::format("{:.0f} ms", kernel.at("compile_ms").get<double>()),
          fmt::to_string(kernel.at("registers").get<int>()),
          fmt::to_string(kernel.at("spill_bytes").get<int>()),
          bytes_text(kernel.at("shared_memory_bytes").get<double>()),
          bytes_text(kernel.at("cubin_bytes").get<double>()),
          kernel.at("key")};
}

ErrorCode parse_code(const std::string& name) {
  for (const ErrorCode code : {ErrorCode::invalid_argument, ErrorCode::unsupported, ErrorCode::compile_failed,
                               ErrorCode::cache_corrupt, ErrorCode::jit_forbidden})
    if (name == to_string(code))
      return code;
  return ErrorCode::internal;
}

/// What became of the kernels so far.
class Outcome {
public:
  explicit Outcome(const CompileRun& run) : run_(run) {}

  void add(const nlohmann::json& kernel) {
    if (kernel.contains("error"))
      return add_failure(kernel);
    kernel.at("cached").get<bool>() ? ++cached_ : ++compiled_;
    if (run_.json)
      print_line(kernel);
    else if (run_.table)
      table_.add(to_row(kernel));
  }

  void print() const {
    if (run_.json)
      return;
    if (run_.table && failures_ < run_.targets.size())
      fmt::print("{}", table_.text());
    const std::chrono::duration<double> elapsed = std::chrono::steady_clock::now() - start_;
    if (!run_.table)
      fmt::print("{} kernels: {} compiled, {} in the cache before, {} failed, in {:.1f} s\n", run_.targets.size(),
                 compiled_, cached_, failures_, elapsed.count());
  }

  void rethrow() const {
    if (failures_ == 0)
      return;
    const nlohmann::json& error = last_failure_.at("error");
    const ErrorCode code = parse_code(error.at("code"));
    if (run_.targets.size() == 1)
      throw Error(code, error.at("problem"), error.at("allowed"), error.at("remedy"));
    throw Error(code, fmt::format("{} of {} kernels were not compiled", failures_, run_.targets.size()),
                "every kernel compiles", "see the warnings above");
  }

private:
  /// At once: who reads it may want to show progress, and a run that is stopped has said what it did.
  static void print_line(const nlohmann::json& kernel) {
    fmt::print("{}\n", kernel.dump());
    std::fflush(stdout);
  }

  void add_failure(const nlohmann::json& kernel) {
    ++failures_;
    last_failure_ = kernel;
    if (run_.targets.size() == 1)
      return;
    if (run_.json)
      print_line(kernel);
    const nlohmann::json& error = kernel.at("error");
    print_warning(fmt::format("{} on {} failed: {}; {}; {}", kernel.at("problem").get<std::string>(),
                              kernel.at("arch").get<std::string>(), error.at("problem").get<std::string>(),
                              error.at("allowed").get<std::string>(), error.at("remedy").get<std::string>()));
  }

  const CompileRun& run_;
  Table table_{{"problem", "arch", "compiled", "registers", "spills", "shared", "cubin", "key"}};
  std::size_t compiled_ = 0, cached_ = 0, failures_ = 0;
  nlohmann::json last_failure_;
  std::chrono::steady_clock::time_point start_ = std::chrono::steady_clock::now();
};

} // namespace

std::vector<CompileTarget> compile_targets(const std::vector<Problem>& problems,
                                           const std::vector<Architecture>& architectures) {
  std::vector<CompileTarget> targets;
  for (const Problem& problem : problems)
    for (const Problem& variant : closed_variants(problem))
      for (const Architecture& architecture : architectures)
        targets.push_back({variant, architecture});
  return targets;
}

void run_compiles(const CompileRun& run) {
  cache::KernelCache kernels(run.cache.options(), print_warning);
  Outcome outcome(run);
  Progress progress("compiling", run.targets.size()); // its thread does nothing in the first second: forks may follow
  const auto replace_bad_text = nlohmann::json::error_handler_t::replace; // a compiler's log may hold anything
  run_in_processes(
      run.targets.size(), run.workers,
      [&](std::size_t job) {
        return compile_one(kernels, run.targets[job], run).dump(-1, ' ', false, replace_bad_text);
      },
      [&](std::size_t job, const std::optional<std::string>& result) {
        outcome.add(result ? nlohmann::json::parse(*result) : describe_lost(run.targets[job]));
        progress.step();
      });
  progress.finish();
  outcome.print();
  outcome.rethrow();
}

} // namespace tilewright::tools
