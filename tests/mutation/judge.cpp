// Runs the kernels with one mutant after the other switched on, each in a process of its own, and says which are
// noticed.
//
//     TILEWRIGHT_TEMPLATES=DIR mutation_judge FOLDER PROCESSES [--verbose] [--case NAME] [--seeds N] ID...
//
// DIR: templates in which mutate.py has put all mutants at once. FOLDER: for compiled kernels. First all cases run
// without a mutant, which must be right, and the kernels note which mutants' code they come by; a mutant is then judged
// by those cases alone, the fastest first, under each seed. Prints a line for each mutant: its number, "killed" or
// "survived" or "unreached" (no case comes by it), and what was said; before them one line for each kernel template.
#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <iostream>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <thread>
#include <vector>

#include <csignal>
#include <sys/time.h>
#include <sys/wait.h>
#include <unistd.h>

#include "cases.hpp"
#include "judged_executor.hpp"
#include <tilewright/error.hpp>

using namespace tilewright;
using namespace tilewright::mutation;

namespace {

std::uint64_t seeds = 3; // --seeds
constexpr std::size_t most_mutants = 1 << 14;

/// What mutants and this process know of each other; mutate.py puts the same into the templates.
struct Switchboard {
  int active; // the mutant that is on; 0: none, and those that are come by are noted
  unsigned char reached[most_mutants];
};
Switchboard switchboard;

struct Judged {
  Case with;
  double seconds = 0; // of processor time, under all seeds
  std::set<int> reached = {};
};

EmulatorOptions options_for(const Case& with, std::uint64_t seed) {
  EmulatorOptions options;
  options.architecture = with.architecture;
  options.threads = 1;
  options.seed = seed;
  options.completion = seed == 0 ? Completion::latest : seed == 1 ? Completion::earliest : Completion::seeded;
  options.check_races = with.races && seed != 1;
  return options;
}

std::string complaint(const Case& with, CompiledKernels& kernels, std::uint64_t seed) {
  try {
    return with.run(std::make_shared<JudgedExecutor>(options_for(with, seed), kernels));
  } catch (const Error& error) {
    return error.what();
  }
}

double processor_seconds() { return static_cast<double>(std::clock()) / CLOCKS_PER_SEC; }

/// Makes and compiles all cases, several at a time; then runs them one after the other.
std::vector<Judged> prepare(CompiledKernels& kernels, std::size_t threads, const std::vector<std::string>& only,
                            bool verbose) {
  std::vector<CaseMaker> makers;
  for (CaseMaker& maker : all_cases())
    if (only.empty() || std::any_of(only.begin(), only.end(), [&](const std::string& part) {
          return maker.name.find(part) != std::string::npos;
        }))
      makers.push_back(std::move(maker));
  std::vector<std::optional<Case>> cases(makers.size());
  std::vector<std::string> failures(makers.size());
  std::atomic<std::size_t> next = 0;
  const auto work = [&] {
    for (std::size_t i; (i = next++) < makers.size();)
      try {
        cases[i] = makers[i].make();
        failures[i] = complaint(*cases[i], kernels, 0);
      } catch (const std::exception& error) {
        failures[i] = error.what();
      }
  };
  std::vector<std::thread> team;
  for (std::size_t i = 0; i < threads; ++i)
    team.emplace_back(work);
  for (std::thread& thread : team)
    thread.join();
  bool right = true;
  std::vector<Judged> judged;
  for (std::size_t i = 0; i < makers.size(); ++i) {
    std::memset(switchboard.reached, 0, sizeof switchboard.reached);
    const double start = processor_seconds();
    std::string wrong = failures[i];
    for (std::uint64_t seed = 0; seed < seeds && wrong.empty(); ++seed)
      wrong = complaint(*cases[i], kernels, seed);
    if (!wrong.empty()) {
      std::cerr << "without a mutant, \"" << makers[i].name << "\" is wrong: " << wrong << "\n";
      right = false;
      continue;
    }
    Judged done{*cases[i], processor_seconds() - start, {}};
    for (std::size_t id = 0; id < most_mutants; ++id)
      if (switchboard.reached[id] != 0)
        done.reached.insert(static_cast<int>(id));
    if (verbose)
      std::cerr << makers[i].name << ": " << done.seconds << " s, " << done.reached.size() << " mutants\n";
    judged.push_back(std::move(done));
  }
  if (!right)
    std::exit(2);
  std::stable_sort(judged.begin(), judged.end(),
                   [](const Judged& a, const Judged& b) { return a.seconds < b.seconds; });
  return judged;
}

/// The process ends by SIGPROF where it takes more processor time than this from now on.
void limit_time(double seconds) {
  const auto whole = static_cast<time_t>(seconds);
  const auto rest = static_cast<suseconds_t>((seconds - static_cast<double>(whole)) * 1e6);
  const itimerval limit{{0, 0}, {whole, rest}};
  ::setitimer(ITIMER_PROF, &limit, nullptr);
}

/// In the child. Empty where nothing was noticed.
std::string first_complaint(const std::vector<Judged>& cases, int id, CompiledKernels& kernels) {
  for (std::uint64_t seed = 0; seed < seeds; ++seed)
    for (const Judged& judged : cases)
      if (judged.reached.contains(id)) {
        limit_time(1 + 5 * judged.seconds);
        if (const std::string said = complaint(judged.with, kernels, seed); !said.empty())
          return judged.with.name + ", seed " + std::to_string(seed) + ": " + said.substr(0, 400);
      }
  return {};
}

struct Running {
  int id, output;
};

void report(const Running& child, int status) {
  std::string said;
  char buffer[512];
  for (ssize_t count; (count = ::read(child.output, buffer, sizeof buffer)) > 0;)
    said.append(buffer, static_cast<std::size_t>(count));
  ::close(child.output);
  std::replace(said.begin(), said.end(), '\n', ' ');
  std::cout << child.id;
  if (WIFEXITED(status) && WEXITSTATUS(status) == 0)
    std::cout << " survived";
  else if (WIFSIGNALED(status))
    std::cout << " killed by signal " << WTERMSIG(status)
              << (WTERMSIG(status) == SIGPROF ? ": it runs on" : ": a crash");
  else
    std::cout << " killed " << said;
  std::cout << std::endl;
}

void judge(const std::vector<int>& ids, const std::vector<Judged>& cases, CompiledKernels& kernels,
           std::size_t processes) {
  std::map<pid_t, Running> running;
  const auto wait_for_one = [&] {
    int status = 0;
    const pid_t ended = ::waitpid(-1, &status, 0);
    report(running.at(ended), status);
    running.erase(ended);
  };
  for (const int id : ids) {
    if (std::none_of(cases.begin(), cases.end(), [&](const Judged& judged) { return judged.reached.contains(id); })) {
      std::cout << id << " unreached" << std::endl;
      continue;
    }
    while (running.size() >= processes)
      wait_for_one();
    int ends[2];
    if (::pipe(ends) != 0)
      throw std::runtime_error("no pipe");
    const pid_t child = ::fork();
    if (child == 0) {
      switchboard.active = id;
      const std::string said = first_complaint(cases, id, kernels);
      (void)!::write(ends[1], said.data(), said.size());
      ::_exit(said.empty() ? 0 : 1);
    }
    ::close(ends[1]);
    running.emplace(child, Running{id, ends[0]});
  }
  while (!running.empty())
    wait_for_one();
}

} // namespace

int main(int count, char** arguments) try {
  if (count < 3) {
    std::cerr << "usage: mutation_judge FOLDER PROCESSES [--verbose] [--case NAME] [--seeds N] ID...\n";
    return 2;
  }
  std::vector<int> ids;
  bool verbose = false;
  std::vector<std::string> only;
  for (int i = 3; i < count; ++i)
    if (arguments[i] == std::string("--verbose"))
      verbose = true;
    else if (arguments[i] == std::string("--case") && i + 1 < count)
      only.emplace_back(arguments[++i]);
    else if (arguments[i] == std::string("--seeds") && i + 1 < count)
      seeds = std::strtoull(arguments[++i], nullptr, 10);
    else
      ids.push_back(std::atoi(arguments[i]));
  char address[32];
  std::snprintf(address, sizeof address, "%p", static_cast<void*>(&switchboard));
  ::setenv("TILEWRIGHT_MUTANTS", address, 1);
  const auto processes = static_cast<std::size_t>(std::max(1, std::atoi(arguments[2])));
  CompiledKernels kernels(arguments[1]);
  const std::vector<Judged> cases = prepare(kernels, processes, only, verbose);
  for (const std::string& name : kernels.templates())
    std::cout << "kernel " << name << "\n";
  judge(ids, cases, kernels, processes);
  return 0;
} catch (const std::exception& error) {
  std::cerr << error.what() << "\n";
  return 2;
}
