// What runtimes on the fake driver ask of the kernel cache, and what they say of it.
#include <doctest/doctest.h>

#include <algorithm>
#include <atomic>
#include <string>
#include <thread>
#include <vector>

#include "counting_toolchain.hpp"
#include "driver/cuda_device.hpp"
#include "driver/cuda_executor.hpp"
#include "fake_driver.hpp"
#include "support_temporary_folder.hpp"
#include <tilewright/runtime.hpp>

using namespace tilewright;

namespace {

const Problem dense = parse_problem("attention_forward:pattern=dense,head_dim=64"); // two variants: full and clipped

struct Machine {
  FakeDriver driver;
  TemporaryFolder folder;
  std::atomic<int> compiles{0};

  /// A runtime as a process of its own would make it.
  Runtime runtime(int ordinal = 0, Jit jit = Jit::allow) {
    return Runtime(make_cuda_executor(std::make_shared<const cuda::CudaDevice>(ordinal),
                                      CacheOptions{.folder = folder.path(), .jit = jit}, {},
                                      counting_toolchain(compiles)));
  }
  /// How many of the loaded cubins were made for this architecture.
  [[nodiscard]] std::ptrdiff_t loaded_for(const std::string& architecture) {
    return std::count_if(driver->images.begin(), driver->images.end(), [&](const std::string& image) {
      return image.find("@" + architecture + "/") != std::string::npos;
    });
  }
};

} // namespace

TEST_CASE("a runtime says where its kernels came from") {
  Machine machine;
  Runtime first = machine.runtime();
  CHECK(first.cache_statistics() == CacheStatistics{});
  first.prepare(dense);
  CHECK(first.cache_statistics() == CacheStatistics{.compiles = 2});
  first.prepare(dense); // loaded: the cache is not asked
  CHECK(first.cache_statistics() == CacheStatistics{.compiles = 2});

  Runtime second = machine.runtime(0, Jit::forbid);
  second.prepare(dense);
  CHECK(second.cache_statistics() == CacheStatistics{.disk_hits = 2});
  CHECK_THROWS_AS(second.prepare(parse_problem("attention_forward:pattern=dense,head_dim=128")), const Error&);
  CHECK(second.cache_statistics() == CacheStatistics{.disk_hits = 2});
  CHECK(first.cache_statistics() == CacheStatistics{.compiles = 2});
}

TEST_CASE("statistics are read while other threads prepare") {
  Machine machine;
  Runtime runtime = machine.runtime();
  std::vector<std::thread> threads;
  for (int thread = 0; thread < 4; ++thread)
    threads.emplace_back([&] { runtime.prepare(dense); });
  while (runtime.cache_statistics().compiles < 2)
    std::this_thread::yield();
  for (auto& thread : threads)
    thread.join();
  CHECK(runtime.cache_statistics().compiles == 2);
}

TEST_CASE("two devices of one process: each loads its own architecture's kernels, and one folder serves both") {
  Machine machine;
  machine.driver->devices = {{.name = "old", .major = 8, .minor = 0, .shared_bytes_per_block = 163 * 1024},
                             {.name = "new", .major = 12, .minor = 0, .shared_bytes_per_block = 99 * 1024},
                             {.name = "twin", .major = 12, .minor = 0, .shared_bytes_per_block = 99 * 1024}};
  Runtime old_one = machine.runtime(0), new_one = machine.runtime(1);
  old_one.prepare(dense);
  CHECK(machine.loaded_for("sm_80") == 2);
  CHECK(machine.loaded_for("sm_120") == 0);
  new_one.prepare(dense);
  CHECK(machine.loaded_for("sm_80") == 2);
  CHECK(machine.loaded_for("sm_120") == 2);
  CHECK(new_one.cache_statistics() == CacheStatistics{.compiles = 2});
  Runtime twin = machine.runtime(2); // the same architecture: the same entries, loaded once more
  twin.prepare(dense);
  CHECK(twin.cache_statistics() == CacheStatistics{.disk_hits = 2});
  CHECK(machine.loaded_for("sm_120") == 4);
  CHECK(machine.compiles == 4);
  Runtime again = machine.runtime(0, Jit::forbid);
  again.prepare(dense);
  CHECK(machine.loaded_for("sm_80") == 4);
}
