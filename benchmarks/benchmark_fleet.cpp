// What a fleet pays: a miss, a stampede of processes, an entry from a server on the loopback, and a warmup with one and
// two processes.
#include <benchmark/benchmark.h>

#include <chrono>
#include <cstdlib>
#include <filesystem>
#include <string>
#include <vector>

#include <sys/wait.h>
#include <unistd.h>

#include "cache/cache.hpp"
#include "cache/store.hpp"
#include "compile_run.hpp"
#include "compiler/nvrtc.hpp"
#include "http_cache.hpp"
#include "schedule/heuristic.hpp"
#include <tilewright/problem.hpp>

namespace {

using namespace tilewright;

struct Folder {
  std::filesystem::path path;
  Folder() {
    std::string name = (std::filesystem::temp_directory_path() / "tilewright-benchmark-XXXXXX").string();
    path = ::mkdtemp(name.data());
  }
  ~Folder() { std::filesystem::remove_all(path); }
};

const char* const line = "attention_forward:pattern=sliding_tile,tile=6x8x8,window=3x3x3,text=0,edges=full,head_dim=64";

Spec example_spec() { return schedule::default_spec(parse_problem(line), {8, 0, 0}); }

bool skip_without_nvrtc(benchmark::State& state) {
  if (compiler::identity())
    return false;
  state.SkipWithError("no NVRTC here");
  return true;
}

/// Source, compile, check, publish.
void miss(benchmark::State& state) {
  if (skip_without_nvrtc(state))
    return;
  for (auto _ : state) {
    const Folder folder;
    benchmark::DoNotOptimize(cache::KernelCache({.folder = folder.path}).get(example_spec()));
  }
}
BENCHMARK(miss)->Unit(benchmark::kMillisecond)->UseRealTime();

/// 16 cold processes ask for one kernel: until the last of them has it.
void stampede(benchmark::State& state) {
  if (skip_without_nvrtc(state))
    return;
  for (auto _ : state) {
    const Folder folder;
    std::vector<::pid_t> children;
    for (int process = 0; process < 16; ++process) {
      const ::pid_t child = ::fork();
      if (child == 0) {
        cache::KernelCache({.folder = folder.path}).get(example_spec());
        ::_exit(0);
      }
      children.push_back(child);
    }
    for (const ::pid_t child : children)
      ::waitpid(child, nullptr, 0);
  }
}
BENCHMARK(stampede)->Unit(benchmark::kMillisecond)->UseRealTime();

/// A kernel from $TILEWRIGHT_BENCHMARK_REMOTE (a server that takes PUT: benchmarks/with_nginx.sh) into a cold cache.
void remote_hit(benchmark::State& state) {
  const char* const address = std::getenv("TILEWRIGHT_BENCHMARK_REMOTE");
  if (address == nullptr) {
    state.SkipWithError("TILEWRIGHT_BENCHMARK_REMOTE names no server");
    return;
  }
  const Spec spec = example_spec();
  const Folder origin;
  const auto entry = cache::KernelCache({.folder = origin.path}).get(spec);
  const auto remote = tools::http_options_of_environment(address);
  tools::put_remote(remote, cache::remote_name(entry->key, entry->compiler_identity), cache::encode(*entry));
  for (auto _ : state) {
    state.PauseTiming();
    const Folder folder;
    cache::KernelCache cold({.folder = folder.path, .remote = tools::make_http_cache(remote)});
    state.ResumeTiming();
    benchmark::DoNotOptimize(cold.get(spec));
    if (cold.statistics().remote_hits != 1)
      state.SkipWithError("the server did not have the entry");
  }
}
BENCHMARK(remote_hit)->Unit(benchmark::kMillisecond)->UseRealTime();

/// Eight kernels with so many processes.
void warmup(benchmark::State& state) {
  if (skip_without_nvrtc(state))
    return;
  std::vector<Problem> problems;
  for (const char* rest : {"dense,edges=full,head_dim=64", "dense,edges=clipped,head_dim=64",
                           "dense,edges=full,head_dim=128", "dense,edges=clipped,head_dim=128"})
    problems.push_back(parse_problem(std::string("attention_forward:pattern=") + rest));
  for (auto _ : state) {
    const Folder folder;
    tools::run_compiles({.targets = tools::compile_targets(problems, {{8, 0, 0}, {8, 6, 0}}),
                         .schedule = std::nullopt,
                         .cache = {.folder = folder.path},
                         .workers = static_cast<unsigned>(state.range(0)),
                         .table = false});
  }
  state.SetItemsProcessed(8 * state.iterations());
}
BENCHMARK(warmup)->Arg(1)->Arg(2)->Unit(benchmark::kMillisecond)->UseRealTime();

} // namespace

BENCHMARK_MAIN();
