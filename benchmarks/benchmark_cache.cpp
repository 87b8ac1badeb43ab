// What a kernel costs to find: in memory (the path of every call), on disk (a new process), and its key.
#include <benchmark/benchmark.h>

#include <atomic>
#include <cstdlib>
#include <filesystem>
#include <new>
#include <span>
#include <string>

#include <unistd.h>

#include "cache/cache.hpp"
#include "cache/key.hpp"
#include "cache/store.hpp"
#include "schedule/heuristic.hpp"
#include "support/files.hpp"
#include <tilewright/problem.hpp>

namespace {

std::atomic<long> allocations{0};

} // namespace

// Every allocation of this program is counted: a memory hit must make none. Not inlined, because g++ 12 then takes the
// pair for a mismatch.
[[gnu::noinline]] void* operator new(std::size_t bytes) {
  allocations.fetch_add(1, std::memory_order_relaxed);
  if (void* const memory = std::malloc(bytes))
    return memory;
  throw std::bad_alloc();
}
[[gnu::noinline]] void operator delete(void* memory) noexcept { std::free(memory); }
[[gnu::noinline]] void operator delete(void* memory, std::size_t) noexcept { std::free(memory); }

namespace {

using namespace tilewright;

Spec example_spec() {
  const Problem problem = parse_problem("attention_forward:pattern=sliding_tile,tile=6x8x8,window=3x3x3,text=1,"
                                        "edges=full,dtype=bf16,head_dim=128,layout=raster");
  return schedule::default_spec(problem, {8, 0, 0}, Family::sm80, nullptr);
}

/// The real code generator and NVRTC's real identity; the compiler is replaced by 100 KB of anything.
cache::Toolchain toolchain() {
  constexpr std::size_t cubin_bytes = 100'000;
  auto made = cache::default_toolchain();
  made.compile = [](const codegen::GeneratedSource&, const Architecture&) {
    compiler::CompiledKernel kernel;
    kernel.cubin.resize(cubin_bytes);
    return kernel;
  };
  return made;
}

struct Folder {
  std::filesystem::path path;
  Folder() {
    std::string name = (std::filesystem::temp_directory_path() / "tilewright-benchmark-XXXXXX").string();
    path = ::mkdtemp(name.data());
  }
  ~Folder() { std::filesystem::remove_all(path); }
};

void memory_hit(benchmark::State& state) {
  const Folder folder;
  cache::KernelCache cache({.folder = folder.path}, {}, toolchain());
  const Spec spec = example_spec();
  cache.get(spec);
  const long before = allocations;
  for (auto _ : state)
    benchmark::DoNotOptimize(cache.get(spec));
  if (allocations != before)
    state.SkipWithError("a memory hit allocated");
}
BENCHMARK(memory_hit);

/// What a new process pays for a kernel that is on disk: source, key, compiler's identity, reading, verifying.
void disk_hit(benchmark::State& state) {
  const Folder folder;
  const Spec spec = example_spec();
  cache::KernelCache({.folder = folder.path}, {}, toolchain()).get(spec);
  for (auto _ : state) {
    cache::KernelCache cold({.folder = folder.path}, {}, toolchain());
    if (cold.get(spec)->origin != KernelOrigin::disk)
      state.SkipWithError("the entry was not on disk");
  }
}
BENCHMARK(disk_hit)->Unit(benchmark::kMicrosecond);

void disk_hit_among_10000(benchmark::State& state) {
  const Folder folder;
  const cache::Store store(folder.path, cache::Store::Access::read_write);
  const Spec spec = example_spec();
  cache::KernelCache({.folder = folder.path}, {}, toolchain()).get(spec);
  for (std::uint64_t number = 0; number < 9'999; ++number) {
    const std::string text = std::to_string(number);
    cache::CacheEntry entry;
    entry.key = support::hash128(std::as_bytes(std::span(text)));
    const auto path = store.path_of(entry.key, "");
    std::filesystem::create_directories(path.parent_path());
    support::write_atomically(path, {});
  }
  for (auto _ : state) {
    cache::KernelCache cold({.folder = folder.path}, {}, toolchain());
    if (cold.get(spec)->origin != KernelOrigin::disk)
      state.SkipWithError("the entry was not on disk");
  }
}
BENCHMARK(disk_hit_among_10000)->Unit(benchmark::kMicrosecond)->Iterations(1000);

void generate_source(benchmark::State& state) {
  const Spec spec = example_spec();
  for (auto _ : state)
    benchmark::DoNotOptimize(codegen::generate(spec));
}
BENCHMARK(generate_source)->Unit(benchmark::kMicrosecond);

void compute_key(benchmark::State& state) {
  const Spec spec = example_spec();
  const auto source = codegen::generate(spec);
  for (auto _ : state)
    benchmark::DoNotOptimize(cache::request_key(source, spec.architecture));
}
BENCHMARK(compute_key)->Unit(benchmark::kMicrosecond);

void publish(benchmark::State& state) {
  const Folder folder;
  const cache::Store store(folder.path, cache::Store::Access::read_write);
  cache::CacheEntry entry;
  entry.cubin.resize(100'000);
  for (auto _ : state)
    store.publish(entry);
}
BENCHMARK(publish)->Unit(benchmark::kMicrosecond);

} // namespace

BENCHMARK_MAIN();
