#include "options.hpp"

#include <cstdio>

#include <CLI/CLI.hpp>
#include <fmt/format.h>

#include "http_cache.hpp"
#include "support/text.hpp"

namespace tilewright::tools {
namespace {

/// Errors of parsing are errors of usage.
template <typename Parse> auto usage(Parse parse) {
  try {
    return parse();
  } catch (const Error& error) {
    throw UsageError(error);
  }
}

} // namespace

void print_warning(std::string_view message) { fmt::print(stderr, "tilewright: warning: {}\n", message); }

Problem problem_option(const std::string& line) {
  return usage([&] {
    const Problem problem = parse_problem(line);
    validate(problem);
    return problem;
  });
}

Problem attention_option(const std::string& line) {
  const Problem problem = problem_option(line);
  if (problem.op != Operator::attention_forward && problem.op != Operator::video_sparse_attention)
    throw UsageError(fmt::format("the problem is '{}'", line),
                     "attention_forward and video_sparse_attention are allowed",
                     "use compile or source for the kernels that these are made of");
  if (problem.op == Operator::attention_forward && problem.blend != Blend::none)
    throw UsageError(fmt::format("the problem is '{}'", line), "blend=none is allowed for attention_forward",
                     "use video_sparse_attention, which computes what is blended in");
  return problem;
}

Extent3 extent_option(const std::string& option, const std::string& text) {
  try {
    return parse_extent3(text);
  } catch (const Error& error) {
    throw UsageError(fmt::format("{}: {}", option, error.problem()), error.allowed(), error.remedy());
  }
}

std::vector<Window> windows_option(const std::string& text) {
  std::vector<Window> windows;
  for (const std::string_view part : support::split(text, ','))
    windows.push_back(extent_option("--windows", std::string(part)));
  return windows;
}

std::vector<Architecture> architectures_option(const std::string& text) {
  return usage([&] {
    std::vector<Architecture> architectures;
    for (const std::string_view part : support::split(text, ','))
      architectures.push_back(parse_architecture(part));
    return architectures;
  });
}

std::optional<Schedule> schedule_option(const std::string& text) {
  if (text.empty())
    return std::nullopt;
  return usage([&] { return parse_schedule(text); });
}

void CacheChoice::add_to(CLI::App& command) {
  command.add_option("--cache", folder, "The cache's folder (default: $TILEWRIGHT_CACHE, else ~/.cache/tilewright)");
  command.add_option("--jit", jit, "What a kernel that is not in the cache does")
      ->check(CLI::IsMember({"allow", "warn", "forbid"}))
      ->capture_default_str();
}

CacheOptions CacheChoice::options() const {
  return {.folder = folder,
          .jit = jit == "forbid" ? Jit::forbid
                 : jit == "warn" ? Jit::warn
                                 : Jit::allow,
          .remote = remote_cache_of_environment()};
}

void PatternChoice::add_to(CLI::App& command) {
  command.add_option("--canvas", canvas, "Extents of the video in tokens, TxHxW");
  command.add_option("--key-canvas", key_canvas, "The same for the keys, where it differs (block lists)");
  command.add_option("--windows", windows,
                     "Windows in tiles, one for all heads or one a head: 3x3x3,1x3x3,... (window=per_head)");
  command.add_option("--text-length", text_length, "Valid text tokens behind the video's")
      ->check(CLI::NonNegativeNumber);
  auto* const list_option =
      command
          .add_option("--lists", lists,
                      ".safetensors with the block lists: key_blocks [batch, heads, query tiles, count], or counts and "
                      "indices")
          ->check(CLI::ExistingFile);
  command.add_option("--topk", topk, "Let each query tile choose its K best key tiles by mean-pooled scores")
      ->check(CLI::PositiveNumber)
      ->excludes(list_option);
  command.add_option("--sparsity", sparsity, "Instead of --topk: the share that is left out (video_sparse_attention)")
      ->check(CLI::Range(0.0, 1.0))
      ->excludes("--topk");
  command
      .add_option(
          "--sparsity-of", sparsity_of,
          "Its convention: tiles, max(1, ceil((1 - sparsity) * tiles)), or tokens, ceil((1 - sparsity) * tokens "
          "/ 64)")
      ->check(CLI::IsMember({"tiles", "tokens"}))
      ->capture_default_str();
}

} // namespace tilewright::tools
