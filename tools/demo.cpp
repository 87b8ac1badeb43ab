// tilewright demo: real tokens of a real video through the whole chain.
#include <memory>

#include <CLI/CLI.hpp>
#include <fmt/format.h>

#include "attention_run.hpp"
#include "cache/cache.hpp"
#include "commands.hpp"
#include "mask_picture.hpp"
#include "table.hpp"
#include "targets.hpp"

namespace tilewright::tools {
namespace {

struct DemoOptions {
  std::filesystem::path input = "examples/data/tree_12x16x16_h2_d64.safetensors", output = "demo";
  DeviceChoice device;
};

struct Case {
  std::string name, pattern; // pattern: as in the problem's line
  std::optional<std::int64_t> topk{};
};

const std::vector<Case>& cases() {
  static const std::vector<Case> all{{"dense", "pattern=dense"},
                                     {"sliding_tile_1x3x3", "pattern=sliding_tile,tile=4x4x4,window=1x3x3"},
                                     {"sliding_tile_3x3x3", "pattern=sliding_tile,tile=4x4x4,window=3x3x3"},
                                     {"block_list_top5", "pattern=block_list,tile=4x4x4", 5},
                                     {"block_list_top10", "pattern=block_list,tile=4x4x4", 10}};
  return all;
}

AttentionInput input_of(const Case& example, const Safetensors& file) {
  const Problem problem = problem_option(
      fmt::format("attention_forward:{},dtype=bf16,head_dim={}", example.pattern, file.tensors.at("q").shape.back()));
  PatternChoice choice;
  choice.topk = example.topk;
  return read_attention_input(problem, Safetensors(file), choice);
}

/// The pictures of a pattern with tiles: the matrix, and what the middle query tile sees.
void write_pictures(const Case& example, const PatternInput& relation, const std::filesystem::path& folder) {
  const BlockMap map(relation);
  if (!map.queries())
    return;
  constexpr std::int64_t batch = 0, head = 0;
  write_png(folder / (example.name + "_matrix.png"), draw_matrix(map, batch, head), mask_style());
  write_png(folder / (example.name + "_canvas.png"), draw_canvas(map, batch, head, map.query_tiles() / 2),
            mask_style());
}

/// One line of the compile table: what NVRTC made of the problem's kernel, or why nothing.
std::vector<std::string> compile_row(const std::string& name, const Problem& problem, const Architecture& gpu,
                                     cache::KernelCache& kernels) {
  const Spec spec = target_spec(problem, gpu, std::nullopt);
  const bool cached = kernels.find(spec) != nullptr;
  const auto entry = kernels.get(spec);
  return {name,
          to_string(spec.architecture),
          cached ? "hit" : "miss",
          fmt::format("{:.0f} ms", entry->compile_milliseconds),
          fmt::to_string(entry->report.registers),
          fmt::to_string(entry->report.spill_bytes),
          bytes_text(static_cast<double>(entry->cubin.size()))};
}

void compile_kernels(const std::vector<std::pair<std::string, Problem>>& problems, const CacheChoice& choice) {
  cache::KernelCache kernels(choice.options(), print_warning);
  Table table({"CUDA kernel", "arch", "cache", "compiled in", "registers", "spills", "cubin"});
  try {
    for (const auto& [name, problem] : problems)
      for (const Architecture& gpu : {Architecture{8, 0, 0}, Architecture{9, 0, 0}})
        table.add(compile_row(name, problem, gpu, kernels));
  } catch (const Error& error) {
    if (error.code() != ErrorCode::unsupported)
      throw;
    fmt::print("\nThe CUDA kernels are not compiled here: {}.\n", error.problem());
    return;
  }
  fmt::print("\nThe same problems as CUDA kernels, by NVRTC, in the cache:\n\n{}", table.text());
}

void demo(const DemoOptions& options) {
  const Safetensors file = read_safetensors(options.input);
  std::filesystem::create_directories(options.output);
  Table table({"pattern", "blocks kept", "error against dense", "error against its reference", "LSE error", "time",
               "kernel cache"});
  std::vector<std::pair<std::string, Problem>> problems;
  std::string device_name;
  for (const Case& example : cases()) {
    AttentionInput input = input_of(example, file);
    Device device(options.device);
    const AttentionReport report = run_attention(device, input, {.own_reference = true, .dense_reference = true});
    require_agreement(report, input.call.q.dtype);
    write_pictures(example, input.relation, options.output);
    problems.emplace_back(example.name, parse_problem(report.preparation.problem));
    device_name = report.device;
    table.add({example.name, fmt::format("{:.1f} %", 100 * report.kept_blocks),
               fmt::format("{:.4f}", report.dense_error->relative_l2), fmt::format("{:.4f}", report.error->relative_l2),
               fmt::format("{:.1e}", *report.lse_error), fmt::format("{:.1f} ms", report.milliseconds),
               report.preparation.cached ? "hit" : "miss"});
  }
  fmt::print("Attention over the tokens of {} on {}:\n\n{}", options.input.filename().string(), device_name,
             table.text());
  fmt::print("\nErrors are relative L2 norms against float64; the pictures of the masks are in {}.\n",
             options.output.string());
  compile_kernels(problems, options.device.cache);
}

} // namespace

void add_demo(CLI::App& application) {
  auto* const command = application.add_subcommand("demo", "Real tokens of a video through every pattern, checked");
  const auto options = std::make_shared<DemoOptions>();
  command->add_option("--input", options->input, ".safetensors with q, k and v of a video")->capture_default_str();
  command->add_option("--output", options->output, "Folder for the pictures of the masks")->capture_default_str();
  options->device.add_to(*command);
  command->callback([options] { demo(*options); });
}

} // namespace tilewright::tools
