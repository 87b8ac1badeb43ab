// The protocol in one process.
#include <doctest/doctest.h>

#include <barrier>

#include "cache/fixture.hpp"

using namespace tilewright;
using namespace tilewright::test;
using cache::KernelCache;

TEST_CASE("a miss compiles once; after that memory serves, and another process's cache reads the disk") {
  const TemporaryFolder folder;
  CountingCompiler compiler;
  Messages messages;
  const Spec spec = spec_number(64);
  KernelCache first({.folder = folder.path}, messages.callback(), compiler.toolchain());
  CHECK(first.find(spec) == nullptr);
  const auto compiled = first.get(spec);
  CHECK(compiled->origin == KernelOrigin::compiled);
  CHECK(compiled->cubin == expected_cubin(spec));
  CHECK(first.get(spec) == compiled);
  CHECK(first.find(spec) == compiled);
  CHECK(first.statistics().memory_hits == 2);
  CHECK(first.statistics().compiles == 1);

  KernelCache second({.folder = folder.path}, messages.callback(), compiler.toolchain());
  const auto read = second.find(spec);
  REQUIRE(read);
  CHECK(read->origin == KernelOrigin::disk);
  CHECK(read->cubin == compiled->cubin);
  CHECK(read->spec == to_string(spec));
  CHECK(read->kernel_name == "probe");
  CHECK(read->log == compiled->log);
  CHECK(read->report.registers == 168);
  CHECK(second.get(spec) == read);
  CHECK(second.statistics().disk_hits == 1);
  CHECK(compiler.compiles == 1);
  CHECK(messages.all.empty());
}

TEST_CASE("a cache that is never asked touches nothing") {
  const TemporaryFolder folder;
  CountingCompiler compiler;
  { const KernelCache unused({.folder = folder.path / "cache"}, {}, compiler.toolchain()); }
  CHECK_FALSE(fs::exists(folder.path / "cache"));
}

TEST_CASE("folders and files belong to the user alone") {
  const TemporaryFolder folder;
  CountingCompiler compiler;
  KernelCache cache({.folder = folder.path / "cache"}, {}, compiler.toolchain());
  cache.get(spec_number(64));
  for (const auto& file : fs::recursive_directory_iterator(folder.path / "cache"))
    CHECK((fs::status(file.path()).permissions() & (fs::perms::group_all | fs::perms::others_all)) == fs::perms::none);
}

TEST_CASE("64 threads that ask at once get one compile") {
  const TemporaryFolder folder;
  CountingCompiler compiler;
  compiler.duration = std::chrono::milliseconds(50);
  KernelCache cache({.folder = folder.path}, {}, compiler.toolchain());
  constexpr int threads = 64;
  std::barrier start(threads);
  std::vector<std::shared_ptr<const cache::CacheEntry>> entries(threads);
  {
    std::vector<std::jthread> running;
    for (auto& entry : entries)
      running.emplace_back([&] {
        start.arrive_and_wait();
        entry = cache.get(spec_number(64));
      });
  }
  CHECK(compiler.compiles == 1);
  for (const auto& entry : entries)
    CHECK(entry == entries.front());
}

TEST_CASE("a failure reaches every waiter and is then forgotten") {
  const TemporaryFolder folder;
  CountingCompiler compiler;
  compiler.duration = std::chrono::milliseconds(100);
  compiler.fails = true;
  KernelCache cache({.folder = folder.path}, {}, compiler.toolchain());
  constexpr int threads = 8;
  std::barrier start(threads);
  std::atomic<int> failures{0};
  {
    std::vector<std::jthread> running;
    for (int thread = 0; thread < threads; ++thread)
      running.emplace_back([&] {
        start.arrive_and_wait();
        try {
          cache.get(spec_number(64));
        } catch (const Error& error) {
          failures += error.code() == ErrorCode::compile_failed ? 1 : 0;
        }
      });
  }
  CHECK(failures == threads);
  CHECK(compiler.compiles < threads);
  compiler.fails = false;
  CHECK(cache.get(spec_number(64))->cubin == expected_cubin(spec_number(64)));
}

TEST_CASE("a damaged entry is set aside, compiled again, and never served") {
  const TemporaryFolder folder;
  CountingCompiler compiler;
  const Spec spec = spec_number(64);
  KernelCache({.folder = folder.path}, {}, compiler.toolchain()).get(spec);
  const fs::path file = only_entry(folder.path);
  const std::string good = bytes_of(file);
  for (const std::string& bad :
       {std::string(), good.substr(0, good.size() / 2), good + "x", std::string(good.size(), '\0')}) {
    overwrite(file, bad);
    Messages messages;
    KernelCache cache({.folder = folder.path}, messages.callback(), compiler.toolchain());
    CHECK(cache.get(spec)->cubin == expected_cubin(spec));
    CHECK(cache.statistics().compiles == 1);
    CHECK(cache.statistics().corrupt_entries == 1);
    CHECK(messages.about("is not used") == 1);
    CHECK(bytes_of(file) == good);
  }
  CHECK(std::distance(fs::directory_iterator(folder.path / "quarantine"), {}) == 4);
}

TEST_CASE("an entry under another entry's name is not served") {
  const TemporaryFolder folder;
  CountingCompiler compiler;
  KernelCache({.folder = folder.path}, {}, compiler.toolchain()).get(spec_number(64));
  const fs::path first = only_entry(folder.path);
  const TemporaryFolder other;
  KernelCache({.folder = other.path}, {}, compiler.toolchain()).get(spec_number(128));
  overwrite(first, bytes_of(only_entry(other.path)));
  KernelCache cache({.folder = folder.path}, {}, compiler.toolchain());
  CHECK(cache.get(spec_number(64))->cubin == expected_cubin(spec_number(64)));
  CHECK(cache.statistics().compiles == 1);
}

TEST_CASE("entries of an older and of a newer format are a miss, no damage, and make place for what is compiled") {
  const TemporaryFolder folder;
  CountingCompiler compiler;
  const Spec spec = spec_number(64);
  KernelCache({.folder = folder.path}, {}, compiler.toolchain()).get(spec);
  const fs::path file = only_entry(folder.path);
  const std::string ours = bytes_of(file);
  for (const char version : {'\0', '\2', '\x7f'}) {
    std::string other = ours;
    REQUIRE(other[8] != version);
    other[8] = version;
    overwrite(file, other);
    Messages messages;
    // Who may not compile leaves it to whoever can read it.
    KernelCache forbidding({.folder = folder.path, .jit = Jit::forbid}, messages.callback(), compiler.toolchain());
    CHECK(code_of([&] { forbidding.get(spec); }) == ErrorCode::jit_forbidden);
    CHECK(bytes_of(file) == other);
    KernelCache cache({.folder = folder.path}, messages.callback(), compiler.toolchain());
    CHECK(cache.get(spec)->origin == KernelOrigin::compiled);
    CHECK(cache.statistics().corrupt_entries == 0);
    CHECK(messages.all.empty());
    CHECK_FALSE(fs::exists(folder.path / "quarantine"));
    CHECK(bytes_of(file) == ours);
    CHECK(KernelCache({.folder = folder.path}, {}, compiler.toolchain()).get(spec)->origin == KernelOrigin::disk);
  }
}

TEST_CASE("a layout of another version beside ours is left alone by all that we do") {
  const TemporaryFolder folder;
  CountingCompiler compiler;
  fs::create_directories(folder.path / "v2/ab");
  fs::permissions(folder.path / "v2", fs::perms::owner_all);
  overwrite(folder.path / "v2/ab/theirs", "of another version");
  KernelCache cache({.folder = folder.path, .maximum_entries = 2}, {}, compiler.toolchain());
  for (int number = 1; number <= 5; ++number)
    cache.get(spec_number(number));
  cache::Store(folder.path, cache::Store::Access::read_write).prune({.bytes = 0, .entries = 0});
  CHECK(cache::Store(folder.path, cache::Store::Access::read_only).list().empty());
  CHECK(bytes_of(folder.path / "v2/ab/theirs") == "of another version");
}

TEST_CASE("two compilers never share an entry") {
  const TemporaryFolder folder;
  CountingCompiler a, b;
  b.identity = compiler_b;
  const Spec spec = spec_number(64);
  KernelCache({.folder = folder.path}, {}, a.toolchain()).get(spec);
  CHECK(KernelCache({.folder = folder.path}, {}, b.toolchain()).get(spec)->cubin == expected_cubin(spec, compiler_b));
  CHECK(KernelCache({.folder = folder.path}, {}, a.toolchain()).get(spec)->cubin == expected_cubin(spec, compiler_a));
  CHECK(a.compiles == 1);
  CHECK(b.compiles == 1);
}

TEST_CASE("without a compiler the newest entry that can be loaded is served") {
  const TemporaryFolder folder;
  CountingCompiler a, b, none;
  b.identity = compiler_b;
  none.identity.reset();
  const Spec spec = spec_number(64);
  KernelCache({.folder = folder.path}, {}, a.toolchain()).get(spec);
  const fs::path file_a = only_entry(folder.path);
  fs::last_write_time(file_a, fs::last_write_time(file_a) - std::chrono::minutes(10));
  KernelCache({.folder = folder.path}, {}, b.toolchain()).get(spec);

  CHECK(KernelCache({.folder = folder.path}, {}, none.toolchain()).get(spec)->compiler_identity == compiler_b);
  auto old_driver = none.toolchain();
  old_driver.loadable = [](const cache::CacheEntry& entry) { return entry.compiler_identity == compiler_a; };
  CHECK(KernelCache({.folder = folder.path}, {}, old_driver).get(spec)->compiler_identity == compiler_a);
  CHECK(none.compiles == 0);
  CHECK(code_of([&] { KernelCache({.folder = folder.path}, {}, none.toolchain()).get(spec_number(128)); }) ==
        ErrorCode::unsupported);
}

TEST_CASE(
    "jit = forbid throws on a miss, naming the problem and the command; the environment decides over the option") {
  const TemporaryFolder folder;
  CountingCompiler compiler;
  const Spec spec = spec_number(64);
  KernelCache forbidding({.folder = folder.path, .jit = Jit::forbid}, {}, compiler.toolchain());
  std::string message;
  CHECK(code_of([&] { forbidding.get(spec); }, &message) == ErrorCode::jit_forbidden);
  CHECK(message.find(to_string(spec.problem)) != std::string::npos);
  CHECK(message.find("tilewright compile '" + to_string(spec.problem) + "' --arch sm_90a") != std::string::npos);
  CHECK(compiler.compiles == 0);
  {
    const Variable allow("TILEWRIGHT_JIT", "allow");
    CHECK_NOTHROW(forbidding.get(spec));
  }
  KernelCache warmed({.folder = folder.path, .jit = Jit::forbid}, {}, compiler.toolchain());
  CHECK(warmed.get(spec)->origin == KernelOrigin::disk);
  {
    const Variable forbid("TILEWRIGHT_JIT", "forbid");
    KernelCache allowing({.folder = folder.path}, {}, compiler.toolchain());
    CHECK(code_of([&] { allowing.get(spec_number(128)); }) == ErrorCode::jit_forbidden);
  }
  const Variable nonsense("TILEWRIGHT_JIT", "maybe");
  CHECK(code_of([&] { warmed.get(spec_number(128)); }) == ErrorCode::invalid_argument);
}

TEST_CASE("jit = warn compiles and says so") {
  const TemporaryFolder folder;
  CountingCompiler compiler;
  Messages messages;
  KernelCache cache({.folder = folder.path, .jit = Jit::warn}, messages.callback(), compiler.toolchain());
  cache.get(spec_number(64));
  cache.get(spec_number(64));
  CHECK(messages.about("is being compiled") == 1);
}

TEST_CASE("the read-only layer serves and is never written") {
  const TemporaryFolder lower, upper;
  CountingCompiler compiler;
  const Spec spec = spec_number(64);
  KernelCache({.folder = lower.path}, {}, compiler.toolchain()).get(spec);
  const auto entries_before = std::distance(fs::recursive_directory_iterator(lower.path), {});
  const auto time_before = fs::last_write_time(lower.path / "v1");
  KernelCache cache({.folder = upper.path, .read_only_folder = lower.path}, {}, compiler.toolchain());
  CHECK(cache.get(spec)->cubin == expected_cubin(spec));
  CHECK(cache.statistics().read_only_hits == 1);
  CHECK(compiler.compiles == 1);
  cache.get(spec_number(128));
  overwrite(only_entry(lower.path), "damaged");
  Messages messages;
  KernelCache damaged({.folder = upper.path, .read_only_folder = lower.path}, messages.callback(),
                      compiler.toolchain());
  CHECK(damaged.get(spec)->cubin == expected_cubin(spec));
  CHECK(messages.about("is not used") == 1);
  CHECK(std::distance(fs::recursive_directory_iterator(lower.path), {}) == entries_before);
  CHECK(fs::last_write_time(lower.path / "v1") == time_before);
}

TEST_CASE("a cache that cannot be made costs one warning and nothing else") {
  const TemporaryFolder folder;
  CountingCompiler compiler;
  std::ofstream(folder.path / "file") << "in the way";
  Messages messages;
  KernelCache cache({.folder = folder.path / "file" / "cache"}, messages.callback(), compiler.toolchain());
  CHECK(cache.get(spec_number(64))->cubin == expected_cubin(spec_number(64)));
  CHECK(cache.get(spec_number(128))->cubin == expected_cubin(spec_number(128)));
  CHECK(messages.all.size() == 1);
}

TEST_CASE("a folder that vanishes while the cache is in use costs nothing") {
  const TemporaryFolder folder;
  CountingCompiler compiler;
  KernelCache cache({.folder = folder.path / "cache"}, {}, compiler.toolchain());
  cache.get(spec_number(64));
  fs::remove_all(folder.path / "cache");
  CHECK(cache.get(spec_number(128))->cubin == expected_cubin(spec_number(128)));
}

TEST_CASE("a forked child works on, though the parent's threads held every lock") {
  const TemporaryFolder folder;
  CountingCompiler compiler;
  compiler.duration = std::chrono::milliseconds(300);
  KernelCache cache({.folder = folder.path}, {}, compiler.toolchain());
  const auto before = cache.get(spec_number(64));
  std::atomic<bool> stop{false};
  std::jthread reader([&] {
    while (!stop)
      cache.get(spec_number(64));
  });
  std::jthread busy([&] { cache.get(spec_number(128)); });
  while (compiler.compiles < 2) // until the compile of 128 is under way
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  const int in_parent = compiler.compiles;
  const ::pid_t child = start_child([&] {
    compiler.duration = {};
    const bool right = cache.get(spec_number(64))->cubin == before->cubin &&
                       cache.get(spec_number(64))->origin == KernelOrigin::disk &&
                       cache.get(spec_number(256))->cubin == expected_cubin(spec_number(256)) &&
                       cache.get(spec_number(128))->cubin == expected_cubin(spec_number(128));
    // 256, and not 128: the child waited for its parent.
    return right && compiler.compiles == in_parent + 1 ? 0 : 1;
  });
  CHECK(wait_for(child) == 0);
  stop = true;
}
