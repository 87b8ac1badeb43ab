// tilewright doctor: what was found on this machine, and what that means.
#include <filesystem>
#include <functional>
#include <memory>

#include <CLI/CLI.hpp>
#include <fmt/format.h>
#include <fmt/ranges.h>
#include <nlohmann/json.hpp>

#include "cache/store.hpp"
#include "codegen/source.hpp"
#include "commands.hpp"
#include "compiler/nvrtc.hpp"
#include "driver/cuda_device.hpp"
#include "options.hpp"
#include "support/environment.hpp"
#include "table.hpp"
#ifdef TILEWRIGHT_HAS_EMULATOR
#include "emulator/host_compiler.hpp"
#endif

namespace tilewright::tools {
namespace {

/// One subject: whether it is well, and what is known of it.
struct Finding {
  std::string subject;
  bool good = true;
  std::vector<std::string> lines;
};

/// What the investigation adds to; an Error becomes the finding.
Finding find(std::string subject, const std::function<void(Finding&)>& investigate) {
  Finding finding{std::move(subject), true, {}};
  try {
    investigate(finding);
  } catch (const Error& error) {
    finding.good = false;
    finding.lines.push_back(error.problem());
    finding.lines.push_back("to do: " + error.remedy());
  }
  return finding;
}

Finding find_gpu() {
  return find("GPU", [](Finding& finding) {
    const cuda::Api api = cuda::open_api();
    finding.lines.push_back(
        fmt::format("{}, knows CUDA {} and older", api.library, cuda::version_text(api.driver_version)));
    const int count = cuda::device_count(api);
    finding.good = count > 0;
    if (count == 0)
      finding.lines.emplace_back("no GPU is visible to this process");
    for (int ordinal = 0; ordinal < count; ++ordinal) {
      const DeviceDescription device = cuda::describe_device(api, ordinal);
      finding.lines.push_back(fmt::format("cuda:{} {}, {}, {} multiprocessors, {} of shared memory a block", ordinal,
                                          device.name, to_string(device.architecture), device.multiprocessors,
                                          bytes_text(device.shared_bytes_per_block)));
    }
  });
}

Finding find_nvrtc() {
  return find("NVRTC", [](Finding& finding) {
    const compiler::Description description = compiler::describe();
    finding.good = description.problem.empty();
    if (finding.good) {
      finding.lines.push_back(
          fmt::format("{} {}, build id {}", description.version, description.path, description.build_id));
      finding.lines.push_back(fmt::format("compiles for sm_{}", fmt::join(description.architectures, ", sm_")));
      return;
    }
    finding.lines.push_back(description.problem);
    for (const compiler::Candidate& candidate : description.candidates)
      finding.lines.push_back(fmt::format("looked at: {} ({})", candidate.path.string(), candidate.origin));
  });
}

Finding find_cache(const CacheChoice& choice) {
  return find("cache", [&](Finding& finding) {
    const std::filesystem::path folder = cache::cache_folder(choice.folder);
    if (!std::filesystem::exists(folder)) {
      finding.lines.push_back(fmt::format("{} does not exist yet", folder.string()));
      return;
    }
    double bytes = 0;
    const auto files = cache::Store(folder, cache::Store::Access::read_only).list();
    for (const cache::StoredFile& file : files)
      bytes += static_cast<double>(file.bytes);
    finding.lines.push_back(fmt::format("{}, {} entries, {}", folder.string(), files.size(), bytes_text(bytes)));
    if (const auto lower = cache::read_only_folder({}); !lower.empty())
      finding.lines.push_back(fmt::format("read-only layer: {}", lower.string()));
    if (const auto jit = support::environment("TILEWRIGHT_JIT"))
      finding.lines.push_back(fmt::format("TILEWRIGHT_JIT={}", *jit));
  });
}

Finding find_emulator() {
  return find("emulator", [](Finding& finding) {
#ifdef TILEWRIGHT_HAS_EMULATOR
    finding.lines.push_back(fmt::format("host compiler: {}", fmt::join(emulator::find_host_compiler(), " ")));
#else
    finding.good = false;
    finding.lines.emplace_back("not in this build (TILEWRIGHT_EMULATOR=OFF)");
#endif
  });
}

Finding find_templates() {
  return find("templates", [](Finding& finding) { finding.lines.push_back(codegen::template_origin()); });
}

void print_text(const std::vector<Finding>& findings) {
  std::vector<std::pair<std::string, std::string>> lines;
  for (const Finding& finding : findings)
    for (const std::string& line : finding.lines)
      lines.emplace_back(&line == &finding.lines.front()
                             ? fmt::format("{} {}", finding.good ? "ok     " : "missing", finding.subject)
                             : "",
                         line);
  fmt::print("{}", name_value_lines(lines));
}

void print_json(const std::vector<Finding>& findings) {
  nlohmann::json json = nlohmann::json::object();
  for (const Finding& finding : findings)
    json[finding.subject] = {{"ok", finding.good}, {"lines", finding.lines}};
  json["version"] = TILEWRIGHT_VERSION;
  fmt::print("{}\n", json.dump());
}

} // namespace

void add_doctor(CLI::App& application) {
  auto* const command = application.add_subcommand("doctor", "What was found: driver, GPUs, NVRTC, cache, emulator");
  const auto json = std::make_shared<bool>(false);
  const auto cache = std::make_shared<CacheChoice>();
  command->add_flag("--json", *json, "One JSON object");
  cache->add_to(*command);
  command->callback([json, cache] {
    const std::vector<Finding> findings{find_gpu(), find_nvrtc(), find_cache(*cache), find_emulator(),
                                        find_templates()};
    *json ? print_json(findings) : print_text(findings);
  });
}

} // namespace tilewright::tools
