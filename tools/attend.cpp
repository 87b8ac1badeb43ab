// tilewright attend: a file's q, k and v in, out and LSE out; with --backward, dout in and the gradients out, too.
#include <memory>

#include <CLI/CLI.hpp>
#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "attention_run.hpp"
#include "commands.hpp"
#include "output_file.hpp"
#include "table.hpp"
#include "video_sparse_input.hpp"

namespace tilewright::tools {
namespace {

struct AttendOptions {
  std::string problem;
  std::filesystem::path input, output;
  PatternChoice pattern;
  DeviceChoice device;
  bool check = false, also_dense = false, backward = false, json = false;
};

nlohmann::json to_json(const AttentionReport& report) {
  const Preparation& preparation = report.preparation;
  nlohmann::json json{{"problem", preparation.problem},
                      {"arch", nullptr},
                      {"device", report.device},
                      {"milliseconds", report.milliseconds},
                      {"max_abs_error", nullptr},
                      {"relative_l2_error", nullptr},
                      {"cache", preparation.cached ? "hit" : "miss"},
                      {"kept_blocks", report.kept_blocks}};
  if (!preparation.architecture.empty())
    json["arch"] = preparation.architecture;
  if (report.error) {
    json["max_abs_error"] = report.error->max_absolute;
    json["relative_l2_error"] = report.error->relative_l2;
    json["max_abs_lse_error"] = *report.lse_error;
  }
  if (report.dense_error)
    json["dense_relative_l2_error"] = report.dense_error->relative_l2;
  if (report.gradient) {
    json["backward_milliseconds"] = report.gradient->milliseconds;
    json["backward_cache"] = report.gradient->preparation.cached ? "hit" : "miss";
    for (const GradientError& error : report.gradient->errors)
      json["gradient_relative_l2_errors"][error.name] = error.relative_l2;
  }
  return json;
}

std::string to_text(const AttentionReport& report) {
  std::vector<std::pair<std::string, std::string>> lines{
      {"problem", report.preparation.problem},
      {"device", report.device},
      {"kernel", report.preparation.cached ? "from the cache" : "compiled, or computed without one"},
      {"time", fmt::format("{:.3f} ms", report.milliseconds)},
      {"blocks kept", fmt::format("{:.1f} %", 100 * report.kept_blocks)}};
  if (report.error) {
    lines.emplace_back("error", fmt::format("{:.2e} relative L2, {:.2e} at most", report.error->relative_l2,
                                            report.error->max_absolute));
    lines.emplace_back("LSE error", fmt::format("{:.2e} at most", *report.lse_error));
  }
  if (report.dense_error)
    lines.emplace_back("error against dense", fmt::format("{:.2e} relative L2", report.dense_error->relative_l2));
  if (report.gradient) {
    lines.emplace_back("backward", fmt::format("{:.3f} ms", report.gradient->milliseconds));
    for (const GradientError& error : report.gradient->errors)
      lines.emplace_back(fmt::format("error of {}", error.name), fmt::format("{:.2e} relative L2", error.relative_l2));
  }
  return name_value_lines(lines);
}

void attend(const AttendOptions& options) {
  const Problem problem = attention_option(options.problem);
  check_output(options.output, "--output");
  Device device(options.device);
  const Comparison comparison{.own_reference = options.check, .dense_reference = options.also_dense};
  std::optional<AttentionInput> whole; // what the results are taken from
  AttentionReport report;
  std::optional<GradientTensors> gradients;
  if (problem.op == Operator::video_sparse_attention) {
    VideoSparseInput sparse = read_video_sparse_input(problem, options.input, options.pattern);
    if (options.backward)
      gradients = read_gradient(options.input, sparse.base, sparse.gate.has_value());
    report = run_video_sparse(device, sparse, problem, comparison, gradients ? &*gradients : nullptr);
    whole.emplace(std::move(sparse.base));
  } else {
    whole.emplace(read_attention_input(problem, read_safetensors(options.input), options.pattern));
    if (options.backward)
      gradients = read_gradient(options.input, *whole, false);
    report = run_attention(device, *whole, comparison);
    if (gradients)
      report.gradient = run_gradient(device, *whole, *gradients, options.check);
  }
  AttentionInput& input = *whole;
  if (options.check)
    require_agreement(report, problem.dtype);
  if (report.gradient)
    require_agreement(*report.gradient);
  Safetensors result;
  result.metadata = {{"problem", report.preparation.problem}, {"device", report.device}};
  result.tensors.emplace("out", std::move(input.out));
  result.tensors.emplace("lse", std::move(input.lse));
  if (gradients) {
    result.tensors.emplace("dq", std::move(gradients->dq));
    result.tensors.emplace("dk", std::move(gradients->dk));
    result.tensors.emplace("dv", std::move(gradients->dv));
    if (gradients->dgate)
      result.tensors.emplace("dgate", std::move(*gradients->dgate));
  }
  write_safetensors(options.output, result);
  if (options.json)
    fmt::print("{}\n", to_json(report).dump());
  else
    fmt::print("{}", to_text(report));
}

} // namespace

void add_attend(CLI::App& application) {
  auto* const command = application.add_subcommand("attend", "Attention over the q, k and v of a .safetensors file");
  const auto options = std::make_shared<AttendOptions>();
  command->add_option("problem", options->problem, "The problem's line, for example attention_forward:pattern=dense")
      ->required();
  command->add_option("--input", options->input, ".safetensors with q, k and v")->required();
  command->add_option("--output", options->output, ".safetensors for out and lse, and for the gradients")->required();
  command->add_flag("--check", options->check, "Compare with the float64 reference; fail where they differ");
  command->add_flag("--backward", options->backward,
                    "Write dq, dk, dv and dgate, too: the gradients, from the input's dout");
  command->add_flag("--also-dense", options->also_dense, "Tell the error against dense attention in float64, too");
  command->add_flag("--json", options->json, "One JSON object");
  options->pattern.add_to(*command);
  options->device.add_to(*command);
  command->callback([options] { attend(*options); });
}

} // namespace tilewright::tools
