// What every kernel does on one small problem, by the emulator's counters, against what recorded_counters.txt says: a
// tile that is loaded twice, a product more, a layout whose rows conflict, are seen without a GPU.
#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <fstream>
#include <functional>
#include <map>
#include <optional>
#include <random>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include <doctest/doctest.h>
#include <fmt/format.h>

#include "codegen/templates.hpp"
#include "kernels/forms.hpp"
#include "support_environment.hpp"
#include "support_random_backward.hpp"
#include "support_tile_kernels.hpp"
#include "support_video_sparse_backward.hpp"
#include <tilewright/emulator.hpp>
#include <tilewright/runtime.hpp>

using namespace tilewright;
using namespace tilewright::testing;

namespace {

/// A kernel's launches in one case.
struct Counted {
  EmulatorCounters sum;
  std::string spec; // of the last
};

/// By name: the operator and the case.
using Counts = std::map<std::string, Counted>;

std::string line_of(const std::string& name, const EmulatorCounters& counters) {
  return fmt::format("{:>8} | {:>7} | {:>7} | {:>7} | {:>6} | {:>5} | {}", counters.bytes_loaded, counters.bytes_stored,
                     counters.bytes_to_shared, counters.bytes_from_shared, counters.matrix_instructions,
                     counters.bank_conflicts, name);
}

std::string name_of(std::string_view line) { return std::string(line.substr(line.rfind("| ") + 2)); }

struct Case {
  std::string name;
  Architecture architecture;
  RuntimeOptions options = {};              // schedules, where not the default ones
  std::optional<Operator> operator_of = {}; // whose kernels are kept; nothing: all
};

/// Runs the cases and keeps what the emulator has counted.
class Counter {
public:
  /// run(runtime) makes the case's calls.
  void count(const Case& of, const std::function<void(Runtime&)>& run) {
    EmulatorOptions emulator;
    emulator.architecture = of.architecture;
    emulator.counted = [&](std::string_view spec, const EmulatorCounters& counters) {
      const std::string_view op = spec.substr(0, spec.find(':'));
      if (of.operator_of && op != to_string(*of.operator_of))
        return;
      const std::string_view schedule = spec.substr(spec.find('/') + 1);
      templates_.insert(fmt::format("kernels/{}_{}.cu", op, to_string(parse_schedule(schedule).family)));
      Counted& counted = counts_[fmt::format("{}, {}", op, of.name)];
      counted.spec = spec;
      counted.sum += counters;
    };
    RuntimeOptions options = of.options;
    options.cache.folder = "/nonexistent"; // no tuned schedules
    Runtime runtime(make_emulator(emulator), options);
    run(runtime);
  }

  [[nodiscard]] const Counts& counts() const noexcept { return counts_; }
  [[nodiscard]] const std::set<std::string>& templates() const noexcept { return templates_; }

private:
  Counts counts_;
  std::set<std::string> templates_;
};

/// In place of what a distribution has drawn, which differs between libraries: what is selected depends on it, and so
/// does whether a fixed reference maximum is left. Padding stays NaN.
void draw_anew(const TensorView& view, Layout layout) {
  std::mt19937 generator;
  std::vector<double> values = reference::read_tensor(view, layout);
  for (double& value : values)
    if (!std::isnan(value))
      value = static_cast<double>(generator() % 256) / 64 - 2;
  reference::write_tensor(view, layout, values);
}

void forward(Counter& counter, const Case& of, const AttentionForm& form) {
  const RandomProblem problem(form.seed, form.limits);
  draw_anew(problem.call().q, problem.call().layout);
  draw_anew(problem.call().k, problem.call().layout);
  counter.count(of, [&](Runtime& runtime) { runtime.attention_forward(problem.call(), problem.pattern()); });
}

void backward(Counter& counter, const Case& of, const AttentionForm& form) {
  const RandomBackward problem(form.seed, form.limits);
  counter.count(of, [&](Runtime& runtime) { runtime.attention_backward(problem.call(), problem.pattern()); });
}

/// Forward and backward.
void video_sparse(Counter& counter, const Case& of, const VideoSparseForm& form) {
  RandomVideoSparseBackward problem(form.seed, form.limits);
  draw_anew(problem.problem().call().q, *form.limits.layout);
  draw_anew(problem.problem().call().k, *form.limits.layout);
  counter.count(of, [&](Runtime& runtime) {
    CHECK(problem.check(
              runtime, [&](const VideoSparseAttention& call) { runtime.video_sparse_attention(call); },
              [&](const VideoSparseAttentionBackward& call) { runtime.video_sparse_attention_backward(call); }) == "");
  });
}

const char* name_of(PatternKind pattern) {
  return pattern == PatternKind::dense ? "dense" : pattern == PatternKind::sliding_tile ? "sliding tile" : "block list";
}

/// bf16 alone: the other type's kernels do the same.
void count_default_kernels(Counter& counter, const Architecture& architecture) {
  const auto case_of = [&](const char* pattern, const auto& limits) {
    return Case{fmt::format("{}, {}, head_dim={}, {}", pattern, to_string(*limits.layout), *limits.head_dim,
                            to_string(architecture)),
                architecture};
  };
  for (const AttentionForm& form : forward_forms(architecture))
    if (form.limits.dtype == DataType::bf16)
      forward(counter, case_of(name_of(*form.limits.pattern), form.limits), form);
  for (const AttentionForm& form : backward_forms(architecture))
    if (form.limits.dtype == DataType::bf16)
      backward(counter, case_of(name_of(*form.limits.pattern), form.limits), form);
  for (const VideoSparseForm& form : video_sparse_gradient_forms(architecture))
    if (form.limits.dtype == DataType::bf16)
      video_sparse(counter, case_of("video sparse", form.limits), form);
}

void count_hopper_schedules(Counter& counter) {
  for (const auto& [op, schedule] : hopper_schedules()) {
    const std::vector<AttentionForm> forms = fitting_forms(op, schedule, 1);
    REQUIRE(forms.size() == 1);
    Case of{to_string(schedule), hopper, {}, op};
    if (op == Operator::attention_forward) {
      of.options.schedule = schedule;
      forward(counter, of, forms[0]);
    } else {
      (op == Operator::attention_backward_key ? of.options.backward_key_schedule : of.options.backward_query_schedule) =
          schedule;
      backward(counter, of, forms[0]);
    }
  }
}

void count_tile_kernels(Counter& counter) {
  counter.count({"70 x 33 tiles", ampere}, [](Runtime& runtime) {
    CHECK(list_complaint(runtime, {2, 3, 70, 33}, 7) == "");
  });
  counter.count({"33 of 330 tiles", ampere}, [](Runtime& runtime) {
    CHECK(select_complaint(runtime, {2, 2, 33, 330, 33}, {}, 7) == "");
  });
}

constexpr std::string_view record_command =
    "TILEWRIGHT_RECORD_COUNTERS=1 build/tests/test_kernels --test-case='every kernel is counted*'";

std::string recorded_path() { return source_folder() + "/tests/kernels/recorded_counters.txt"; }

/// Lines by name.
std::map<std::string, std::string> recorded_lines() {
  std::ifstream file(recorded_path());
  REQUIRE_MESSAGE(file, recorded_path(), ": run in the source folder, or set TILEWRIGHT_SOURCE_DIR");
  std::map<std::string, std::string> lines;
  for (std::string line; std::getline(file, line);)
    if (!line.empty() && line[0] != '#')
      lines[name_of(line)] = line;
  return lines;
}

void record(const Counts& counts) {
  std::ofstream file(recorded_path());
  file
      << "# What each kernel does on one small problem (test_counters.cpp). Recorded by\n# " << record_command << "\n"
      << "# Columns (EmulatorCounters): bytes loaded from and stored to global memory by threads, bytes copied to and\n"
         "# from shared memory, matrix instructions, bank conflicts; the kernel and the case.\n";
  for (const auto& [name, counted] : counts)
    file << line_of(name, counted.sum) << "\n";
  REQUIRE_MESSAGE(file.flush(), recorded_path(), ": run in the source folder, or set TILEWRIGHT_SOURCE_DIR");
  MESSAGE("recorded in ", recorded_path(), ": look at what git says has changed");
}

void compare(const Counts& counts) {
  std::map<std::string, std::string> lines = recorded_lines();
  for (const auto& [name, counted] : counts) {
    const std::string now = line_of(name, counted.sum);
    const auto found = lines.extract(name);
    const std::string recorded = found.empty() ? "nothing" : found.mapped();
    if (recorded != now)
      FAIL_CHECK(
          fmt::format("a kernel does not do what is recorded\n recorded: {}\n now:      {}\n by {}\n where this is "
                      "meant: {}",
                      recorded, now, counted.spec, record_command));
  }
  for (const auto& [name, line] : lines)
    FAIL_CHECK(fmt::format("no kernel is counted for a recorded line\n recorded: {}\n where this is meant: {}", line,
                           record_command));
}

} // namespace

TEST_CASE("every kernel is counted: bytes, matrix instructions and bank conflicts are those recorded") {
  Counter counter;
  count_default_kernels(counter, ampere);
  count_default_kernels(counter, hopper);
  count_hopper_schedules(counter);
  count_tile_kernels(counter);
  for (std::size_t i = 0; i < codegen::embedded_template_count; ++i) {
    const std::string name(codegen::embedded_templates[i].name);
    if (name.ends_with(".cu"))
      CHECK_MESSAGE(counter.templates().contains(name), "no case counts what ", name, " does");
  }
  if (std::getenv("TILEWRIGHT_RECORD_COUNTERS") != nullptr)
    record(counter.counts());
  else
    compare(counter.counts());
}
