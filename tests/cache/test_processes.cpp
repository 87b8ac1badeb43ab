// The protocol between processes: one compile for all, and death at any moment.
#include <doctest/doctest.h>

#include <random>

#include <fcntl.h>
#include <signal.h>
#include <sys/ptrace.h>

#include "cache/fixture.hpp"
#include "cache/lock.hpp"

using namespace tilewright;
using namespace tilewright::test;
using cache::KernelCache;
using cache::Store;

namespace {

/// A compiler that leaves one byte in a file for every compile, so that all processes count together.
cache::Toolchain shared_count(CountingCompiler& compiler, const fs::path& tally) {
  auto toolchain = compiler.toolchain();
  toolchain.compile = [compile = toolchain.compile, tally](const codegen::GeneratedSource& source,
                                                           const Architecture& architecture) {
    const support::FileDescriptor file(::open(tally.c_str(), O_WRONLY | O_CREAT | O_APPEND, 0600));
    if (::write(file.get(), "x", 1) != 1)
      throw std::runtime_error("the tally cannot be written");
    return compile(source, architecture);
  };
  return toolchain;
}

/// Every entry in the folder is whole, and asking for it again compiles at most what is missing.
void check_survivors(const fs::path& folder, const Spec& spec) {
  const Store store(folder, Store::Access::read_write);
  std::size_t bad = 0;
  for (const auto& file : store.list()) {
    const auto decoded = store.read(file.path);
    bad += decoded && decoded->state == cache::Decoding::good ? 0 : 1;
  }
  CHECK(bad == 0);
  CountingCompiler compiler;
  Messages messages;
  CHECK(KernelCache({.folder = folder}, messages.callback(), compiler.toolchain()).get(spec)->cubin ==
        expected_cubin(spec));
  CHECK(KernelCache({.folder = folder}, messages.callback(), compiler.toolchain()).get(spec)->origin ==
        KernelOrigin::disk);
  CHECK(messages.all.empty());
}

} // namespace

TEST_CASE("16 cold processes on one key compile once") {
  const TemporaryFolder folder;
  CountingCompiler compiler;
  compiler.duration = std::chrono::milliseconds(200);
  const fs::path tally = folder.path / "tally", cache_folder = folder.path / "cache";
  int gate[2];
  REQUIRE(::pipe(gate) == 0);
  std::vector<::pid_t> children;
  for (int process = 0; process < 16; ++process)
    children.push_back(start_child([&] {
      ::close(gate[1]);
      char byte = 0;
      if (::read(gate[0], &byte, 1) != 0) // returns when the parent opens the gate by closing it
        return 2;
      KernelCache cache({.folder = cache_folder}, {}, shared_count(compiler, tally));
      return cache.get(spec_number(64))->cubin == expected_cubin(spec_number(64)) ? 0 : 1;
    }));
  ::close(gate[0]);
  ::close(gate[1]);
  for (const ::pid_t child : children)
    CHECK(wait_for(child) == 0);
  CHECK(bytes_of(tally) == "x");
}

TEST_CASE("a process that was killed while it compiled keeps nobody waiting") {
  const TemporaryFolder folder;
  CountingCompiler slow, quick;
  slow.duration = std::chrono::seconds(30);
  const ::pid_t child = start_child([&] {
    KernelCache({.folder = folder.path}, {}, slow.toolchain()).get(spec_number(64));
    return 0;
  });
  std::this_thread::sleep_for(std::chrono::milliseconds(100));
  ::kill(child, SIGKILL);
  wait_for(child);
  KernelCache cache({.folder = folder.path}, {}, quick.toolchain());
  CHECK(cache.get(spec_number(64))->cubin == expected_cubin(spec_number(64)));
  CHECK(cache.statistics().lock_timeouts == 0);
}

TEST_CASE("a process that hangs while it compiles is waited for only so long") {
  const TemporaryFolder folder;
  CountingCompiler slow, quick;
  slow.duration = std::chrono::seconds(30);
  int started[2];
  REQUIRE(::pipe(started) == 0);
  const ::pid_t child = start_child([&] {
    auto toolchain = slow.toolchain();
    toolchain.compile = [&, compile = toolchain.compile](const codegen::GeneratedSource& source,
                                                         const Architecture& to) {
      if (::write(started[1], "x", 1) != 1)
        ::_exit(1);
      return compile(source, to);
    };
    KernelCache({.folder = folder.path}, {}, toolchain).get(spec_number(64));
    return 0;
  });
  char byte = 0;
  REQUIRE(::read(started[0], &byte, 1) == 1);
  Messages messages;
  KernelCache cache({.folder = folder.path, .lock_patience = std::chrono::milliseconds(100)}, messages.callback(),
                    quick.toolchain());
  CHECK(cache.get(spec_number(64))->cubin == expected_cubin(spec_number(64)));
  CHECK(cache.statistics().lock_timeouts == 1);
  CHECK(messages.about("another process") == 1);
  ::kill(child, SIGKILL);
  wait_for(child);
  ::close(started[0]);
  ::close(started[1]);
}

TEST_CASE("a lock excludes, ends with its scope, and does not concern other names") {
  const TemporaryFolder folder;
  using State = cache::NameLock::State;
  const fs::path file = folder.path / "locks";
  const auto patience = std::chrono::milliseconds(20);
  {
    const cache::NameLock first(file, 1000, patience);
    CHECK(first.state() == State::held);
    CHECK(cache::NameLock(file, 1000, patience).state() == State::timed_out);
    CHECK(cache::NameLock(file, ~std::uint64_t{0}, patience).state() == State::held);
  }
  CHECK(cache::NameLock(file, 1000, patience).state() == State::held);
  CHECK(cache::NameLock(folder.path / "missing" / "locks", 1000, patience).state() == State::unavailable);
}

TEST_CASE("SIGKILL at random moments leaves only whole entries, and no later compile is lost") {
  const TemporaryFolder folder;
  std::mt19937 random(12345);
  std::uniform_int_distribution<int> microseconds(0, 6000);
  constexpr int kills = 1000;
  int published = 0, unfinished = 0;
  Messages messages;
  for (int round = 0; round < kills; ++round) {
    const ::pid_t child = start_child([&] {
      CountingCompiler compiler;
      compiler.cubin_bytes = 100'000;
      KernelCache cache({.folder = folder.path, .maximum_entries = 20}, {}, compiler.toolchain());
      for (int number = 1;; ++number)
        cache.get(spec_number(round * 1000 + number));
      return 0;
    });
    ::usleep(static_cast<::useconds_t>(microseconds(random)));
    ::kill(child, SIGKILL);
    wait_for(child);
    const Store store(folder.path, Store::Access::read_write);
    for (const auto& file : store.list()) {
      const auto decoded = store.read(file.path);
      REQUIRE((decoded && decoded->state == cache::Decoding::good));
      REQUIRE(decoded->entry.cubin.size() == 100'000);
      ++published;
    }
    // Whatever the dead process was at, its kernel is found or compiled at once, and kept.
    const Spec spec = spec_number(round * 1000 + 1);
    CountingCompiler compiler;
    compiler.cubin_bytes = 100'000;
    const CacheOptions options{.folder = folder.path, .maximum_entries = 20};
    KernelCache after(options, messages.callback(), compiler.toolchain());
    REQUIRE(after.get(spec)->cubin == expected_cubin(spec, compiler_a, 100'000));
    REQUIRE(after.statistics().lock_timeouts == 0);
    REQUIRE(KernelCache(options, messages.callback(), compiler.toolchain()).get(spec)->origin == KernelOrigin::disk);
    if (fs::exists(folder.path / "tmp"))
      for (const auto& file : fs::directory_iterator(folder.path / "tmp")) {
        fs::remove(file.path());
        ++unfinished;
      }
  }
  CHECK(messages.all.empty());
  CHECK(published > kills); // else nobody got as far as publishing, and the test has shown nothing
  CHECK(unfinished > 0);    // some died while they wrote
  check_survivors(folder.path, spec_number(1));
}

TEST_CASE("SIGKILL at every single system call of a first publish") {
  std::size_t step = 0;
  bool finished = false;
  for (; !finished; ++step) {
    const TemporaryFolder folder;
    const ::pid_t child = start_child([&] {
      CountingCompiler compiler;
      KernelCache cache({.folder = folder.path / "cache"}, {}, compiler.toolchain());
      if (::ptrace(PTRACE_TRACEME, 0, nullptr, nullptr) != 0)
        return 77;
      ::raise(SIGSTOP);
      cache.get(spec_number(64));
      return 0;
    });
    int status = wait_for(child);
    if (WIFEXITED(status) && WEXITSTATUS(status) == 77) {
      MESSAGE("SKIPPED: this machine does not allow ptrace");
      return;
    }
    for (std::size_t call = 0; call < step && WIFSTOPPED(status); ++call) {
      REQUIRE(::ptrace(PTRACE_SYSCALL, child, nullptr, nullptr) == 0);
      status = wait_for(child);
    }
    finished = WIFEXITED(status);
    if (!finished) {
      ::kill(child, SIGKILL);
      wait_for(child);
    }
    check_survivors(folder.path / "cache", spec_number(64));
  }
  CHECK(step > 20); // opening, creating, writing, syncing, renaming: each has a stop before and after it
}

TEST_CASE("processes that publish, prune and read in one small cache never see a wrong kernel, nor a warning") {
  const TemporaryFolder folder;
  constexpr int processes = 6, specs = 30, rounds = 200;
  std::vector<::pid_t> children;
  for (int process = 0; process < processes; ++process)
    children.push_back(start_child([&] {
      std::mt19937 random(static_cast<unsigned>(process));
      std::uniform_int_distribution<int> any(1, specs);
      Messages messages;
      std::uint64_t read = 0;
      for (int round = 0; round < rounds; ++round) { // a cache of its own each time: nothing comes from memory
        CountingCompiler compiler;
        compiler.cubin_bytes = 20'000;
        const Spec spec = spec_number(any(random));
        KernelCache cache({.folder = folder.path, .maximum_entries = 10}, messages.callback(), compiler.toolchain());
        if (cache.get(spec)->cubin != expected_cubin(spec, compiler_a, 20'000))
          return 1;
        const auto statistics = cache.statistics();
        if (statistics.corrupt_entries + statistics.failed_writes + statistics.lock_timeouts > 0)
          return 2;
        read += statistics.disk_hits;
      }
      if (!messages.all.empty())
        return 3;
      return read > 0 && read < rounds ? 0 : 4; // else nothing was pruned, or nothing was left to be read
    }));
  for (const ::pid_t child : children)
    CHECK(wait_for(child) == 0);
  // Each publish prunes what it sees; what others publish at that moment is theirs to prune.
  CHECK(Store(folder.path, Store::Access::read_only).list().size() < 10 + processes);
}
