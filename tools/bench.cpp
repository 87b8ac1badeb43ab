// tilewright bench: time on random inputs, after a warm-up, the caches flushed between runs.
#include <algorithm>
#include <memory>
#include <vector>

#include <CLI/CLI.hpp>
#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "attention_input.hpp"
#include "commands.hpp"
#include "device.hpp"
#include "progress.hpp"
#include "table.hpp"
#include <tilewright/reference.hpp>

namespace tilewright::tools {
namespace {

struct BenchOptions {
  std::vector<std::string> problems;
  RandomShape shape;
  PatternChoice pattern;
  DeviceChoice device;
  double warm_up_seconds = 0.3;
  int rounds = 0; // 0: gpu_rounds on a GPU, host_rounds elsewhere
  bool warm_cache = false, json = false;
};

constexpr int gpu_rounds = 30, host_rounds = 3;

struct Times {
  double lower_quartile, median, upper_quartile; // milliseconds
};

struct BenchReport {
  Preparation preparation;
  std::string device;
  Times times;
  double flops, bytes;

  [[nodiscard]] double tflops() const { return flops / (times.median * 1e9); }
  [[nodiscard]] double gigabytes_per_second() const { return bytes / (times.median * 1e6); }
};

/// Writes more than the L2 holds, so that the next kernel finds nothing of its inputs there.
class L2Flush {
public:
  explicit L2Flush(const Device& device) {
    constexpr std::size_t times_larger = 2;
    if (device.is_gpu())
      memory_.emplace(device.gpu(), times_larger * static_cast<std::size_t>(
                                                       device.gpu()->attribute(cuda::DeviceAttribute::l2_cache_bytes)));
  }
  void operator()() {
    if (memory_)
      memory_->fill(std::byte{1});
  }

private:
  std::optional<cuda::DeviceMemory> memory_;
};

Times quartiles(std::vector<double> times) {
  std::sort(times.begin(), times.end());
  return {times[times.size() / 4], times[times.size() / 2], times[times.size() * 3 / 4]};
}

/// What every kernel must at least move: each tensor once.
double compulsory_bytes(const AttentionInput& input) {
  return static_cast<double>(input.q.bytes.size() + input.k.bytes.size() + input.v.bytes.size() +
                             input.out.bytes.size() + input.lse.bytes.size());
}

BenchReport bench_one(const Problem& problem, const BenchOptions& options) {
  const AttentionInput input = make_random_input(problem, options.shape, options.pattern);
  Device device(options.device);
  BenchReport report;
  report.device = device.name();
  report.flops = reference::forward_flops(input.call, input.relation.pattern);
  report.bytes = compulsory_bytes(input);
  const AttentionForward call = device.place(input.call);
  const Pattern pattern = device.place(input.relation.pattern);
  report.preparation = device.prepare(call, pattern);

  const int rounds = options.rounds > 0 ? options.rounds : device.is_gpu() ? gpu_rounds : host_rounds;
  Progress progress("measuring on " + device.name(), static_cast<std::size_t>(rounds));
  const auto run_once = [&] { return device.measure([&] { device.attention_forward(call, pattern); }); };
  const double enough = options.warm_up_seconds * 1e3;
  for (double spent = run_once(); spent < enough;)
    spent += run_once();

  L2Flush flush(device);
  std::vector<double> times;
  for (int round = 0; round < rounds; ++round) {
    if (!options.warm_cache)
      flush();
    times.push_back(run_once());
    progress.step();
  }
  report.times = quartiles(std::move(times));
  return report;
}

nlohmann::json to_json(const BenchReport& report) {
  return {{"problem", report.preparation.problem},
          {"arch", report.preparation.architecture},
          {"device", report.device},
          {"milliseconds", report.times.median},
          {"milliseconds_quartiles", {report.times.lower_quartile, report.times.upper_quartile}},
          {"tflops", report.tflops()},
          {"gigabytes_per_second", report.gigabytes_per_second()},
          {"cache", report.preparation.cached ? "hit" : "miss"}};
}

void bench(const BenchOptions& options) {
  Table table({"problem", "device", "median ms", "quartiles ms", "TFLOP/s", "GB/s"});
  for (const std::string& line : options.problems) {
    const BenchReport report = bench_one(problem_option(line), options);
    if (options.json)
      fmt::print("{}\n", to_json(report).dump());
    else
      table.add({report.preparation.problem, report.device, fmt::format("{:.4g}", report.times.median),
                 fmt::format("{:.4g} to {:.4g}", report.times.lower_quartile, report.times.upper_quartile),
                 fmt::format("{:.3g}", report.tflops()), fmt::format("{:.3g}", report.gigabytes_per_second())});
  }
  if (!options.json)
    fmt::print("{}TFLOP/s count 4 * head_dim * valid query-key pairs; GB/s count every tensor once.\n", table.text());
}

} // namespace

void add_bench(CLI::App& application) {
  auto* const command = application.add_subcommand("bench", "Measure kernels on normally distributed random inputs");
  const auto options = std::make_shared<BenchOptions>();
  command->add_option("problems", options->problems, "Problems' lines")->required();
  command->add_option("--batch", options->shape.batch)->check(CLI::PositiveNumber)->capture_default_str();
  command->add_option("--heads", options->shape.heads)->check(CLI::PositiveNumber)->capture_default_str();
  command->add_option("--kv-heads", options->shape.kv_heads, "Where they are fewer than the heads")
      ->check(CLI::PositiveNumber);
  command->add_option("--tokens", options->shape.tokens, "Query tokens (dense)")->check(CLI::PositiveNumber);
  command->add_option("--key-tokens", options->shape.key_tokens, "Key tokens, where they are not as many (dense)")
      ->check(CLI::PositiveNumber);
  command->add_option("--input-seed", options->shape.seed, "Of the random inputs and block lists")
      ->capture_default_str();
  command
      ->add_option("--rounds", options->rounds,
                   fmt::format("Measured runs (default: {} on a GPU, {} elsewhere)", gpu_rounds, host_rounds))
      ->check(CLI::PositiveNumber);
  command->add_option("--warm-up", options->warm_up_seconds, "Seconds; one run at least")
      ->check(CLI::NonNegativeNumber)
      ->capture_default_str();
  command->add_flag("--warm-cache", options->warm_cache, "Do not flush the L2 between runs");
  command->add_flag("--json", options->json, "One JSON object a line and problem");
  options->pattern.add_to(*command);
  options->device.add_to(*command);
  command->callback([options] { bench(*options); });
}

} // namespace tilewright::tools
