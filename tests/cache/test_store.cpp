// The folder: what is trusted, what is pruned.
#include <doctest/doctest.h>

#include <fcntl.h>
#include <sys/mount.h>
#include <sys/stat.h>

#include "cache/fixture.hpp"

using namespace tilewright;
using namespace tilewright::test;
using cache::Decoding;
using cache::KernelCache;
using cache::Limits;
using cache::Store;

namespace {

constexpr Limits no_limits{~std::uint64_t{0}, ~std::uint64_t{0}};

cache::CacheEntry entry_number(int number, std::size_t bytes = 1000) {
  cache::CacheEntry entry;
  entry.key = {static_cast<std::uint64_t>(number) << 56U, static_cast<std::uint64_t>(number)};
  entry.compiler_identity = compiler_a;
  entry.cubin = expected_cubin(spec_number(number), compiler_a, bytes);
  return entry;
}

void set_times(const fs::path& path, std::int64_t seconds_from_now) {
  const ::timespec times[2] = {{::time(nullptr) + seconds_from_now, 0}, {::time(nullptr) + seconds_from_now, 0}};
  REQUIRE(::utimensat(AT_FDCWD, path.c_str(), times, AT_SYMLINK_NOFOLLOW) == 0);
}

std::int64_t age_of(const fs::path& path) {
  struct ::stat status {};
  REQUIRE(::stat(path.c_str(), &status) == 0);
  return ::time(nullptr) - status.st_atime;
}

constexpr std::int64_t hour = 3600, day = 24 * hour;

} // namespace

TEST_CASE("a symbolic link, a folder or a pipe in place of an entry is not followed, not read, and replaced") {
  const TemporaryFolder folder;
  CountingCompiler compiler;
  const Spec spec = spec_number(64);
  KernelCache({.folder = folder.path}, {}, compiler.toolchain()).get(spec);
  const fs::path file = only_entry(folder.path), elsewhere = folder.path / "elsewhere";
  fs::rename(file, elsewhere); // a good entry: only that it is a link speaks against it
  const std::string untouched = bytes_of(elsewhere);

  const auto refuses = [&](const char* reason) {
    Messages messages;
    KernelCache cache({.folder = folder.path}, messages.callback(), compiler.toolchain());
    CHECK(cache.get(spec)->origin == KernelOrigin::compiled);
    CHECK(messages.about(reason) == 1);
    CHECK(fs::is_regular_file(fs::symlink_status(file)));
    CHECK(bytes_of(elsewhere) == untouched);
    CHECK(KernelCache({.folder = folder.path}, {}, compiler.toolchain()).get(spec)->origin == KernelOrigin::disk);
    fs::remove(file);
  };
  fs::create_symlink(elsewhere, file);
  refuses("symbolic link");
  fs::create_directory(file);
  refuses("not a regular file");
  REQUIRE(::mkfifo(file.c_str(), 0600) == 0);
  refuses("not a regular file");
}

TEST_CASE("a cache that others may write to is refused unless allowed by name") {
  const TemporaryFolder folder;
  CountingCompiler compiler;
  const Spec spec = spec_number(64);
  KernelCache({.folder = folder.path}, {}, compiler.toolchain()).get(spec);
  for (const ::mode_t mode : {0770U, 0707U, 0777U}) {
    REQUIRE(::chmod(folder.path.c_str(), mode) == 0);
    Messages messages;
    KernelCache cache({.folder = folder.path}, messages.callback(), compiler.toolchain());
    CHECK(cache.get(spec)->origin == KernelOrigin::compiled);
    CHECK(messages.about("TILEWRIGHT_CACHE_ALLOW_SHARED=1") == 1);
    CHECK_THROWS_AS(Store(folder.path, Store::Access::read_only), Error);
  }
  const Variable allow("TILEWRIGHT_CACHE_ALLOW_SHARED", "1");
  Messages messages;
  CHECK(KernelCache({.folder = folder.path}, messages.callback(), compiler.toolchain()).get(spec)->origin ==
        KernelOrigin::disk);
  CHECK(messages.all.empty());
}

TEST_CASE("an entry file that others may write to, or that is another user's, is not read") {
  const TemporaryFolder folder;
  CountingCompiler compiler;
  const Spec spec = spec_number(64);
  KernelCache({.folder = folder.path}, {}, compiler.toolchain()).get(spec);
  REQUIRE(::chmod(only_entry(folder.path).c_str(), 0666) == 0);
  CHECK(KernelCache({.folder = folder.path}, {}, compiler.toolchain()).get(spec)->origin == KernelOrigin::compiled);

  if (::geteuid() != 0) {
    MESSAGE("SKIPPED in part: only root can give a file away");
    return;
  }
  constexpr ::uid_t stranger = 12345;
  REQUIRE(::chown(only_entry(folder.path).c_str(), stranger, stranger) == 0);
  CHECK(KernelCache({.folder = folder.path}, {}, compiler.toolchain()).get(spec)->origin == KernelOrigin::compiled);
  REQUIRE(::chown(folder.path.c_str(), stranger, stranger) == 0);
  Messages messages;
  CHECK(KernelCache({.folder = folder.path}, messages.callback(), compiler.toolchain()).get(spec)->origin ==
        KernelOrigin::compiled);
  CHECK(messages.about("belongs to user 12345") == 1);
}

TEST_CASE("folders inside the cache that are links, open to others, or another user's, are refused with a warning") {
  const TemporaryFolder folder, elsewhere;
  CountingCompiler compiler;
  const Spec spec = spec_number(64);
  KernelCache({.folder = folder.path}, {}, compiler.toolchain()).get(spec);
  fs::create_directory(folder.path / "quarantine");
  fs::permissions(folder.path / "quarantine", fs::perms::owner_all);
  const auto refuses = [&](const char* reason) {
    for (const bool read_only : {false, true}) {
      const TemporaryFolder other;
      Messages messages;
      const CacheOptions options = read_only ? CacheOptions{.folder = other.path, .read_only_folder = folder.path}
                                             : CacheOptions{.folder = folder.path};
      KernelCache cache(options, messages.callback(), compiler.toolchain());
      CHECK(cache.get(spec)->cubin == expected_cubin(spec));
      CHECK(cache.statistics().compiles == 1);
      CHECK(messages.about(reason) == 1);
      CHECK(messages.all.size() == 1);
    }
  };
  for (const char* part : {"v1", "tmp", "quarantine"}) {
    CAPTURE(part);
    const fs::path inside = folder.path / part, moved = elsewhere.path / part;
    fs::rename(inside, moved);
    fs::create_directory_symlink(moved, inside);
    refuses("is not a folder");
    fs::remove(inside);
    fs::rename(moved, inside);
    fs::permissions(inside, fs::perms::all);
    refuses("may be written to by others");
    fs::permissions(inside, fs::perms::owner_all);
    if (::geteuid() == 0) {
      REQUIRE(::chown(inside.c_str(), 12345, 12345) == 0);
      refuses("belongs to user 12345");
      REQUIRE(::chown(inside.c_str(), 0, 0) == 0);
    }
  }
  if (::geteuid() != 0)
    MESSAGE("SKIPPED in part: only root can give a folder away");
  CHECK(KernelCache({.folder = folder.path}, {}, compiler.toolchain()).get(spec)->origin == KernelOrigin::disk);
}

TEST_CASE("a read-only folder serves, and a miss costs one warning") {
  const TemporaryFolder folder;
  CountingCompiler compiler;
  KernelCache({.folder = folder.path}, {}, compiler.toolchain()).get(spec_number(64));
  // Root may write anywhere, so the child gives its rights up; the folder is then its own, without the right to write.
  for (const auto& file : fs::recursive_directory_iterator(folder.path))
    REQUIRE(::lchown(file.path().c_str(), 12345, 12345) == (::geteuid() == 0 ? 0 : -1));
  if (::geteuid() == 0)
    REQUIRE(::chown(folder.path.c_str(), 12345, 12345) == 0);
  for (const auto& file : fs::recursive_directory_iterator(folder.path))
    if (file.is_directory())
      fs::permissions(file.path(), fs::perms::owner_read | fs::perms::owner_exec);
  fs::permissions(folder.path, fs::perms::owner_read | fs::perms::owner_exec);
  const ::pid_t child = start_child([&] {
    if (::geteuid() == 0 && (::setgid(12345) != 0 || ::setuid(12345) != 0))
      return 2;
    Messages messages;
    KernelCache cache({.folder = folder.path}, messages.callback(), compiler.toolchain());
    if (cache.get(spec_number(64))->origin != KernelOrigin::disk || !messages.all.empty())
      return 3;
    cache.get(spec_number(128));
    cache.get(spec_number(256));
    if (cache.statistics().failed_writes != 2 || messages.all.size() != 1)
      return 4;
    return cache.get(spec_number(128))->cubin == expected_cubin(spec_number(128)) ? 0 : 5;
  });
  CHECK(wait_for(child) == 0);
  for (const auto& file : fs::recursive_directory_iterator(folder.path))
    if (file.is_directory())
      fs::permissions(file.path(), fs::perms::owner_all);
  fs::permissions(folder.path, fs::perms::owner_all);
}

TEST_CASE("a full disk costs one warning and leaves nothing half-written") {
  const TemporaryFolder folder;
  if (::mount("none", folder.path.c_str(), "tmpfs", 0, "size=256k,mode=0700") != 0) {
    MESSAGE("SKIPPED: this machine does not allow mounting a small disk");
    return;
  }
  {
    CountingCompiler compiler;
    compiler.cubin_bytes = 60'000;
    Messages messages;
    KernelCache cache({.folder = folder.path}, messages.callback(), compiler.toolchain());
    for (int number = 1; number <= 10; ++number)
      CHECK(cache.get(spec_number(number))->cubin == expected_cubin(spec_number(number), compiler_a, 60'000));
    CHECK(messages.about("No space left") == 1);
    CHECK(messages.all.size() == 1);
    const Store store(folder.path, Store::Access::read_write);
    const auto files = store.list();
    CHECK(files.size() >= 1);
    for (const auto& file : files)
      CHECK(store.read(file.path)->state == Decoding::good);
    CHECK(fs::is_empty(folder.path / "tmp"));
  }
  CHECK(::umount(folder.path.c_str()) == 0);
}

TEST_CASE("pruning removes the least recently used entries down to nine tenths of the limit") {
  const TemporaryFolder folder;
  const Store store(folder.path, Store::Access::read_write);
  for (int number = 1; number <= 20; ++number) {
    store.publish(entry_number(number));
    set_times(store.path_of(entry_number(number).key, compiler_a), -day * (21 - number));
  }
  const fs::path oldest = store.path_of(entry_number(1).key, compiler_a);
  CHECK(store.prune(no_limits).removed_entries == 0);
  REQUIRE(store.read(oldest)); // used again: it must outlive what was published later
  const auto result = store.prune({no_limits.bytes, 10});
  CHECK(result.removed_entries == 11);
  CHECK(result.left_entries == 9);
  CHECK(store.list().size() == 9);
  CHECK(fs::exists(oldest));
  for (int number = 2; number <= 12; ++number)
    CHECK_FALSE(fs::exists(store.path_of(entry_number(number).key, compiler_a)));
  for (int number = 13; number <= 20; ++number)
    CHECK(fs::exists(store.path_of(entry_number(number).key, compiler_a)));

  const std::uint64_t one = fs::file_size(oldest);
  const auto by_size = store.prune({5 * one, no_limits.entries});
  CHECK(by_size.left_bytes <= 5 * one);
  CHECK(by_size.left_entries == 4);
  CHECK(fs::exists(oldest));
}

TEST_CASE("a cache keeps itself within its limits") {
  const TemporaryFolder folder;
  CountingCompiler compiler;
  KernelCache cache({.folder = folder.path, .maximum_entries = 10}, {}, compiler.toolchain());
  for (int number = 1; number <= 30; ++number) {
    cache.get(spec_number(number));
    const Store store(folder.path, Store::Access::read_only);
    REQUIRE(store.list().size() <= 10);
  }
  KernelCache again({.folder = folder.path}, {}, compiler.toolchain());
  CHECK(again.get(spec_number(30))->origin == KernelOrigin::disk);
}

TEST_CASE("the access time is touched once an hour, on either side of a clock that was set back") {
  const TemporaryFolder folder;
  const Store store(folder.path, Store::Access::read_write);
  store.publish(entry_number(1));
  const fs::path file = store.path_of(entry_number(1).key, compiler_a);
  // The system's own relaxed access times stay out of the way while access is not older than the modification.
  for (const std::int64_t from_now : {-2 * hour, -day, 10 * day}) {
    set_times(file, from_now);
    REQUIRE(store.read(file)->state == Decoding::good);
    CHECK(std::abs(age_of(file)) < 60);
  }
}

TEST_CASE("an entry from the future does not live for ever") {
  const TemporaryFolder folder;
  const Store store(folder.path, Store::Access::read_write);
  store.publish(entry_number(1));
  set_times(store.path_of(entry_number(1).key, compiler_a), 1000 * day);
  for (const auto& file : store.list())
    CHECK(file.last_used <= (::time(nullptr) + 1) * std::int64_t{1'000'000'000});
  KernelCache({.folder = folder.path}, {}, CountingCompiler().toolchain()); // opening it is no matter either
}

TEST_CASE("temporary files older than an hour are swept, younger ones are somebody's work") {
  const TemporaryFolder folder;
  const Store store(folder.path, Store::Access::read_write);
  store.publish(entry_number(1));
  const fs::path temporary = folder.path / "tmp";
  for (const char* name : {"old", "young", "future"})
    overwrite(temporary / name, "x");
  set_times(temporary / "old", -2 * hour);
  set_times(temporary / "future", 2 * hour);
  CHECK(store.prune(no_limits).swept_temporaries == 2);
  CHECK(fs::exists(temporary / "young"));
}

TEST_CASE("what was set aside does not pile up") {
  const TemporaryFolder folder;
  const Store store(folder.path, Store::Access::read_write);
  for (int number = 1; number <= 40; ++number) {
    store.publish(entry_number(number));
    const fs::path file = store.path_of(entry_number(number).key, compiler_a);
    overwrite(file, "damaged");
    CHECK(store.read(file)->state == Decoding::corrupt);
    CHECK_FALSE(fs::exists(file));
  }
  store.prune(no_limits);
  CHECK(std::distance(fs::directory_iterator(folder.path / "quarantine"), {}) == 16);
}

TEST_CASE("pruning and publishing under readers: they see whole entries or none") {
  const TemporaryFolder folder;
  constexpr int keys = 20;
  std::atomic<bool> stop{false};
  std::atomic<int> hits{0}, wrong{0};
  {
    std::vector<std::jthread> readers;
    for (int reader = 0; reader < 2; ++reader)
      readers.emplace_back([&] {
        const Store store(folder.path, Store::Access::read_write);
        for (int round = 0; !stop; ++round) {
          const int number = round % keys + 1;
          const auto decoded = store.read(store.path_of(entry_number(number).key, compiler_a));
          if (!decoded)
            continue;
          ++hits;
          if (decoded->state != Decoding::good || decoded->entry.cubin != entry_number(number, 20'000).cubin)
            ++wrong;
        }
      });
    const Store store(folder.path, Store::Access::read_write);
    for (int round = 0; round < 300; ++round) {
      store.publish(entry_number(round % keys + 1, 20'000));
      store.prune({no_limits.bytes, 10});
    }
    stop = true;
  }
  CHECK(wrong == 0);
  CHECK(hits > 100);
}
