// Runs kernels with one mutant after the other switched on, each in a process of its own, and says which are noticed.
//
//     TILEWRIGHT_TEMPLATES=DIR mutation_judge FOLDER PROCESSES ID...
//
// DIR: templates in which mutate.py has put all mutants at once; which one is on, a kernel reads from
// TILEWRIGHT_MUTANT. FOLDER: for compiled kernels. Prints a line for each mutant: its number, "killed" or "survived" or
// "unreached" (in no kernel here), and what was said. Number 0 is no mutant: it must survive.
#include <algorithm>
#include <cstdlib>
#include <iostream>
#include <list>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include <csignal>
#include <sys/wait.h>
#include <unistd.h>

#include "codegen/source.hpp"
#include "emulator/emulator_executor.hpp"
#include "operators/call_shape.hpp"
#include "operators/launch.hpp"
#include "schedule/heuristic.hpp"
#include "support_random_problem.hpp"
#include <tilewright/error.hpp>

using namespace tilewright;

namespace {

constexpr unsigned time_limit = 20; // seconds for all cases of one mutant; a mutant that runs on is noticed
constexpr std::uint64_t emulator_seeds = 3;

/// A kernel, and a problem on which it is run.
struct Case {
  std::string text; // parts of the problem's line
  PatternKind pattern;
  Layout layout;
  std::string schedule;
  std::int64_t least_keys = 1; // per head
  double query_scale = 1;
};

const std::string sm80 = "family=sm80,block_q=64,block_k=32,stages=3,warps=4,blocks_per_processor=1,softmax=online";
const std::string sm80_lazy = "family=sm80,block_q=64,block_k=32,stages=2,warps=2,blocks_per_processor=1,softmax=lazy";
const std::string two = "family=sm90,block_q=128,block_k=64,blocks_per_processor=1,consumers=2,consumer_registers=232,"
                        "producer_registers=40,";
const std::string one = "family=sm90,block_q=64,block_k=64,stages=2,blocks_per_processor=2,consumers=1,"
                        "consumer_registers=208,producer_registers=40,cluster=1,";
const std::string merged = "family=sm90,block_q=64,block_k=64,cluster=1,blocks_per_processor=1,consumers=2,"
                           "consumer_registers=232,producer_registers=40,stages=3,";

std::vector<Case> all_cases() {
  using enum PatternKind;
  using enum Layout;
  return {
      {"edges=clipped", dense, raster, sm80, 300},
      {"text=1,edges=clipped", sliding_tile, raster, sm80_lazy, 200},
      {"edges=sized", block_list, tiled, sm80_lazy},
      {"edges=full", dense, raster, two + "stages=3,cluster=1,overlap=1,softmax=fixed", 600, 64},
      {"edges=clipped", dense, tiled, two + "stages=2,cluster=2,overlap=1,softmax=online", 300},
      {"text=1,edges=clipped", sliding_tile, raster, one + "overlap=0,softmax=lazy", 200, 16},
      {"text=1,edges=clipped", sliding_tile, tiled, one + "overlap=1,softmax=fixed", 200},
      {"window=per_head", sliding_tile, raster, one + "overlap=0,softmax=online"},
      {"edges=sized", block_list, tiled, merged + "overlap=1,softmax=lazy"},
      {"edges=clipped", block_list, raster, merged + "overlap=0,softmax=fixed"},
  };
}

/// The first random problem that the case asks for and its schedule fits.
std::optional<std::pair<testing::RandomProblem, Spec>> find(const Case& wanted) {
  testing::RandomLimits limits;
  limits.pattern = wanted.pattern;
  limits.layout = wanted.layout;
  limits.dtype = DataType::bf16;
  limits.head_dim = 64;
  limits.max_tokens = 800;
  limits.max_text = 160;
  limits.max_flops = 1.5e7;
  limits.any_strides = false;
  limits.query_scale_max = wanted.query_scale;
  for (std::uint64_t seed = 0; seed < 4000; ++seed) {
    testing::RandomProblem problem(seed, limits);
    const std::int64_t keys = problem.call().k.extents[wanted.layout == Layout::raster ? 1 : 2];
    if (to_string(problem.problem()).find(wanted.text) == std::string::npos || keys < wanted.least_keys ||
        !problem.call().lse)
      continue;
    try {
      Spec spec = schedule::insisted_spec(problem.problem(), {9, 0, 0}, parse_schedule(wanted.schedule));
      return std::pair(std::move(problem), spec);
    } catch (const Error&) {
      continue; // the schedule does not fit this problem
    }
  }
  return std::nullopt;
}

struct Prepared {
  testing::RandomProblem problem;
  Spec spec;
  std::string source;
  std::shared_ptr<const emulator::EmulatedKernel> kernel;
};

/// In the child. Empty where nothing was noticed.
std::string complaint(std::list<Prepared>& cases, const std::string& mark, EmulatorOptions options) {
  for (std::uint64_t seed = 0; seed < emulator_seeds; ++seed)
    for (Prepared& prepared : cases) {
      if (!mark.empty() && prepared.source.find(mark) == std::string::npos)
        continue;
      options.seed = seed;
      options.completion = seed == 0 ? Completion::latest : Completion::seeded;
      emulator::EmulatorExecutor executor(options);
      std::string said;
      try {
        said = prepared.problem.check([&](const AttentionForward& call, const Pattern& pattern) {
          const operators::CallShape shape = operators::check_call(call, pattern);
          const operators::LaunchRequest request{call, pattern, shape, prepared.spec};
          if (prepared.spec.schedule.family == Family::sm90)
            operators::launch_sm90(executor, *prepared.kernel, request, nullptr);
          else
            operators::launch_sm80(executor, *prepared.kernel, request, nullptr);
        });
      } catch (const Error& error) {
        said = error.what();
      }
      if (!said.empty())
        return said.substr(0, 300);
    }
  return {};
}

struct Running {
  std::string id;
  int output;
};

void report(const Running& child, int status) {
  std::string said;
  char buffer[512];
  for (ssize_t count; (count = ::read(child.output, buffer, sizeof buffer)) > 0;)
    said.append(buffer, static_cast<std::size_t>(count));
  ::close(child.output);
  std::replace(said.begin(), said.end(), '\n', ' ');
  if (WIFEXITED(status) && WEXITSTATUS(status) == 0)
    std::cout << child.id << " survived\n";
  else if (WIFSIGNALED(status))
    std::cout << child.id << " killed by signal " << WTERMSIG(status)
              << (WTERMSIG(status) == SIGALRM ? ": it runs on\n" : ": a crash\n");
  else
    std::cout << child.id << " killed " << said << "\n";
  std::cout.flush();
}

} // namespace

int main(int count, char** arguments) try {
  if (count < 4) {
    std::cerr << "usage: mutation_judge FOLDER PROCESSES ID...\n";
    return 2;
  }
  EmulatorOptions options;
  options.architecture = {9, 0, 'a'};
  options.folder = arguments[1];
  options.threads = 1;
  options.check_races = true;
  std::list<Prepared> cases;
  const emulator::EmulatorExecutor compiler(options);
  for (const Case& wanted : all_cases()) {
    auto found = find(wanted);
    if (!found) {
      std::cerr << "no random problem for " << wanted.text << " with " << wanted.schedule << "\n";
      return 2;
    }
    std::string source = codegen::generate(found->second, codegen::Target::emulator).text;
    auto kernel = compiler.kernel_from_source(to_string(found->second), source);
    cases.push_back({std::move(found->first), found->second, std::move(source), std::move(kernel)});
  }
  std::map<pid_t, Running> running;
  const auto wait_for_one = [&] {
    int status = 0;
    const pid_t ended = ::waitpid(-1, &status, 0);
    report(running.at(ended), status);
    running.erase(ended);
  };
  const auto most = static_cast<std::size_t>(std::max(1, std::atoi(arguments[2])));
  for (int i = 3; i < count; ++i) {
    const std::string id = arguments[i], mark = id == "0" ? "" : "mutated(" + id + ")";
    if (std::none_of(cases.begin(), cases.end(),
                     [&](const Prepared& prepared) { return prepared.source.find(mark) != std::string::npos; })) {
      std::cout << id << " unreached\n";
      continue;
    }
    while (running.size() >= most)
      wait_for_one();
    int ends[2];
    if (::pipe(ends) != 0)
      return 2;
    const pid_t child = ::fork();
    if (child == 0) {
      ::alarm(time_limit);
      ::setenv("TILEWRIGHT_MUTANT", id.c_str(), 1);
      const std::string said = complaint(cases, mark, options);
      (void)!::write(ends[1], said.data(), said.size());
      ::_exit(said.empty() ? 0 : 1);
    }
    ::close(ends[1]);
    running.emplace(child, Running{id, ends[0]});
  }
  while (!running.empty())
    wait_for_one();
  return 0;
} catch (const std::exception& error) {
  std::cerr << error.what() << "\n";
  return 2;
}
