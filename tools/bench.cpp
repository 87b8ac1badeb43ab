// tilewright bench: time on random inputs, after a warm-up, the caches flushed between runs.
#include <functional>
#include <memory>
#include <vector>

#include <CLI/CLI.hpp>
#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "attention_input.hpp"
#include "bench_times.hpp"
#include "commands.hpp"
#include "device.hpp"
#include "progress.hpp"
#include "table.hpp"
#include "video_sparse_bench.hpp"
#include <tilewright/reference.hpp>

namespace tilewright::tools {
namespace {

struct BenchOptions {
  std::vector<std::string> problems;
  std::filesystem::path input;
  RandomShape shape;
  PatternChoice pattern;
  DeviceChoice device;
  double warm_up_seconds = 0.3;
  int rounds = 0; // 0: gpu_rounds on a GPU, host_rounds elsewhere
  bool backward = false;
  bool warm_cache = false, no_dense = false, json = false;

  [[nodiscard]] int rounds_on(const Device& target) const;
};

constexpr int gpu_rounds = 30, host_rounds = 3;

int BenchOptions::rounds_on(const Device& target) const {
  return rounds > 0 ? rounds : target.is_gpu() ? gpu_rounds : host_rounds;
}

struct BenchReport {
  Preparation preparation;
  std::string device;
  Times times;
  double flops, bytes;
  bool backward;

  [[nodiscard]] double tflops() const { return flops / (times.median * 1e9); }
  [[nodiscard]] double gigabytes_per_second() const { return bytes / (times.median * 1e6); }
};

/// What every kernel must at least move: each tensor once.
double compulsory_bytes(const AttentionInput& input) {
  return static_cast<double>(input.q.bytes.size() + input.k.bytes.size() + input.v.bytes.size() +
                             input.out.bytes.size() + input.lse.bytes.size());
}

/// The same for the backward pass: q, k, v, out, dout and lse are read, dq, dk and dv written.
double compulsory_backward_bytes(const AttentionInput& input) {
  return compulsory_bytes(input) +
         static_cast<double>(2 * input.q.bytes.size() + input.k.bytes.size() + input.v.bytes.size());
}

/// Five products where the forward pass has two.
constexpr double backward_work = 2.5;

BenchReport bench_one(const Problem& problem, const BenchOptions& options) {
  const AttentionInput input = make_random_input(problem, options.shape, options.pattern);
  Device device(options.device);
  BenchReport report;
  report.device = device.name();
  report.backward = options.backward;
  report.flops = reference::forward_flops(input.call, input.relation.pattern);
  report.bytes = compulsory_bytes(input);
  const AttentionForward call = device.place(input.call);
  const Pattern pattern = device.place(input.relation.pattern);
  std::function<void()> work = [&] { device.attention_forward(call, pattern); };
  AttentionBackward gradients;
  if (options.backward) {
    const auto without_memory = [](TensorView view) {
      view.data = nullptr;
      return view;
    };
    AttentionBackward host{};
    host.dout = input.call.q; // as random as any
    host.dq = without_memory(input.call.q);
    host.dk = without_memory(input.call.k);
    host.dv = without_memory(input.call.v);
    gradients = device.place(host, call, pattern);
    report.preparation = device.prepare(gradients, pattern);
    report.flops *= backward_work;
    report.bytes = compulsory_backward_bytes(input);
    work(); // out and lse
    work = [&] { device.attention_backward(gradients, pattern); };
  } else {
    report.preparation = device.prepare(call, pattern);
  }

  const int rounds = options.rounds_on(device);
  Progress progress("measuring on " + device.name(), static_cast<std::size_t>(rounds));
  const auto run_once = [&] { return device.measure(work); };
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
          {"backward", report.backward},
          {"arch", report.preparation.architecture},
          {"device", report.device},
          {"milliseconds", report.times.median},
          {"milliseconds_quartiles", {report.times.lower_quartile, report.times.upper_quartile}},
          {"tflops", report.tflops()},
          {"gigabytes_per_second", report.gigabytes_per_second()},
          {"cache", report.preparation.cached ? "hit" : "miss"}};
}

/// Rows of the table for one problem of several kernels.
void bench_stages(const Problem& problem, const BenchOptions& options, Table& table) {
  const VideoSparseInput input = options.input.empty()
                                     ? random_video_sparse_input(problem, options.shape, options.pattern)
                                     : read_video_sparse_input(problem, options.input, options.pattern);
  Device device(options.device);
  const VideoSparseTimes times = bench_video_sparse(device, input,
                                                    {.warm_up_seconds = options.warm_up_seconds,
                                                     .rounds = options.rounds_on(device),
                                                     .warm_cache = options.warm_cache,
                                                     .dense = !options.no_dense,
                                                     .backward = options.backward});
  if (options.json) {
    nlohmann::json json = times.to_json();
    json["device"] = device.name();
    fmt::print("{}\n", json.dump());
    return;
  }
  for (const auto& [name, quartiles] : times.stages) {
    const bool fine = name.starts_with("fine"), gradient = name.ends_with("gradient");
    table.add(
        {fmt::format("{}: {}", times.preparation.problem, name), device.name(), fmt::format("{:.4g}", quartiles.median),
         fmt::format("{:.4g} to {:.4g}", quartiles.lower_quartile, quartiles.upper_quartile),
         fine ? fmt::format("{:.3g}", (gradient ? backward_work : 1) * times.fine_flops / (quartiles.median * 1e9))
              : "",
         ""});
  }
  fmt::print("{}{}", times.verdict(), times.verdict().empty() ? "" : "\n");
}

void bench(const BenchOptions& options) {
  Table table({"problem", "device", "median ms", "quartiles ms", "TFLOP/s", "GB/s"});
  for (const std::string& line : options.problems) {
    const Problem problem = attention_option(line);
    if (problem.op == Operator::video_sparse_attention) {
      bench_stages(problem, options, table);
      continue;
    }
    if (!options.input.empty())
      throw UsageError("--input is given",
                       "video_sparse_attention is measured on a file's tensors, others on random ones", "leave it out");
    const BenchReport report = bench_one(problem, options);
    if (options.json)
      fmt::print("{}\n", to_json(report).dump());
    else
      table.add({report.preparation.problem, report.device, fmt::format("{:.4g}", report.times.median),
                 fmt::format("{:.4g} to {:.4g}", report.times.lower_quartile, report.times.upper_quartile),
                 fmt::format("{:.3g}", report.tflops()), fmt::format("{:.3g}", report.gigabytes_per_second())});
  }
  if (!options.json)
    fmt::print("{}TFLOP/s count {} * head_dim * valid query-key pairs; GB/s count every tensor once.\n{}", table.text(),
               options.backward ? 10 : 4,
               options.backward ? "Backward: with the row statistics and, for block lists, their transposition.\n"
                                : "");
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
  command->add_option("--input", options->input, ".safetensors with q, k, v (video_sparse_attention only)")
      ->check(CLI::ExistingFile);
  command->add_flag("--no-dense", options->no_dense, "Do not measure dense attention beside video_sparse_attention");
  command->add_flag("--warm-cache", options->warm_cache, "Do not flush the L2 between runs");
  command->add_flag("--backward", options->backward,
                    "Measure the backward pass of the problems, as 2.5 times the work");
  command->add_flag("--json", options->json, "One JSON object a line and problem");
  options->pattern.add_to(*command);
  options->device.add_to(*command);
  command->callback([options] { bench(*options); });
}

} // namespace tilewright::tools
