// Generated kernels, whole or with something planted in them, on random problems.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include <doctest/doctest.h>

#include "codegen/source.hpp"
#include "emulator/tiny_kernel.hpp"
#include "operators/call_shape.hpp"
#include "operators/launch.hpp"
#include "schedule/heuristic.hpp"
#include "support_random_problem.hpp"

namespace tilewright::testing {

/// One piece of a generated source in place of another.
struct Replacement {
  std::string_view original, changed;
};

/// A kernel of one spec, compiled once, to be run on problems of that spec under many seeds.
class WholeKernel {
public:
  WholeKernel(Spec spec, const std::vector<Replacement>& replacements = {}) : spec_(std::move(spec)) {
    std::string source = codegen::generate(spec_, codegen::Target::emulator).text;
    for (const Replacement& replacement : replacements) {
      const std::string_view original = replacement.original, changed = replacement.changed;
      const std::size_t at = source.find(original);
      CAPTURE(original);
      REQUIRE_MESSAGE(at != std::string::npos, "the templates no longer have the text that this test changes");
      REQUIRE_MESSAGE(source.find(original, at + 1) == std::string::npos, "the text stands there twice");
      source.replace(at, original.size(), changed);
    }
    kernel_ = emulator::EmulatorExecutor(test_options()).kernel_from_source(to_string(spec_), source);
  }

  [[nodiscard]] const emulator::EmulatedKernel& kernel() const { return *kernel_; }

  void launch(Executor& executor, const AttentionForward& call, const Pattern& pattern) const {
    const operators::CallShape shape = operators::check_call(call, pattern);
    const operators::LaunchRequest request{call, pattern, shape, spec_};
    if (spec_.schedule.family == Family::sm90)
      operators::launch_sm90(executor, *kernel_, request, nullptr);
    else
      operators::launch_sm80(executor, *kernel_, request, nullptr);
  }

  /// What is wrong under this seed: the emulator's complaint or the comparison's. Empty where all is right.
  [[nodiscard]] std::string complaint(RandomProblem& problem, const EmulatorOptions& options) const {
    emulator::EmulatorExecutor executor(options);
    try {
      return problem.check(
          [&](const AttentionForward& call, const Pattern& pattern) { launch(executor, call, pattern); });
    } catch (const Error& error) {
      return error.what();
    }
  }

private:
  Spec spec_;
  std::shared_ptr<const emulator::EmulatedKernel> kernel_;
};

/// The first random problem, within the limits, whose problem's line contains all of the texts.
inline RandomProblem find_problem(const RandomLimits& limits, std::initializer_list<std::string_view> texts,
                                  auto&& accept) {
  for (std::uint64_t seed = 0;; ++seed) {
    RandomProblem problem(seed, limits);
    const std::string line = to_string(problem.problem());
    const bool has_all = std::all_of(texts.begin(), texts.end(),
                                     [&](std::string_view text) { return line.find(text) != std::string::npos; });
    if (has_all && accept(problem))
      return problem;
    REQUIRE(seed < 10000);
  }
}

} // namespace tilewright::testing
