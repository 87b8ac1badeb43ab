// A user's limits: disk quotas, files and bytes that a process may not have. They cost one warning and nothing else.
#include <doctest/doctest.h>

#include <cerrno>
#include <cstddef>

#include <fcntl.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>

#include "cache/fixture.hpp"

using namespace tilewright;
using namespace tilewright::test;
using cache::KernelCache;
using cache::Store;

namespace {

/// From now on the kernel answers this system call with "Disk quota exceeded": what a file system says at any step of
/// writing (a network file system only at the end, when fsync sends the bytes), on machines without quotas, too. Of
/// openat only calls that create. For good: only in a child. False where the machine has no seccomp.
bool exceed_quota_at(int system_call) {
  const auto number = static_cast<std::uint32_t>(system_call);
  constexpr std::uint32_t call_at = offsetof(::seccomp_data, nr);
  constexpr std::uint32_t flags_at = offsetof(::seccomp_data, args) + 2 * sizeof(std::uint64_t); // openat's, low half
  const bool only_creating = system_call == SYS_openat;
  ::sock_filter program[] = {
      BPF_STMT(BPF_LD | BPF_W | BPF_ABS, call_at),
      BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, number, 0, 3),
      BPF_STMT(BPF_LD | BPF_W | BPF_ABS, only_creating ? flags_at : call_at),
      BPF_JUMP(BPF_JMP | BPF_JSET | BPF_K, only_creating ? static_cast<std::uint32_t>(O_CREAT) : ~0U, 0, 1),
      BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EDQUOT),
      BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
  };
  const ::sock_fprog filter{static_cast<unsigned short>(std::size(program)), program};
  return ::prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0 && ::prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &filter) == 0;
}

constexpr int no_seccomp = 77;

/// What a process does whose limit was reached after spec 1 was published: it reads that, compiles what else it needs,
/// and says so once. 0, or which of these went wrong.
int use_at_limit(const fs::path& folder, const std::string& reason, std::size_t cubin_bytes = 5000) {
  CountingCompiler compiler;
  compiler.cubin_bytes = cubin_bytes;
  Messages messages;
  KernelCache cache({.folder = folder}, messages.callback(), compiler.toolchain());
  if (cache.get(spec_number(1))->origin != KernelOrigin::disk)
    return 1;
  for (const int number : {2, 3, 4, 2})
    if (cache.get(spec_number(number))->cubin != expected_cubin(spec_number(number), compiler_a, cubin_bytes))
      return 2;
  if (compiler.compiles != 3 || cache.statistics().failed_writes != 3)
    return 3;
  if (messages.all.size() != 1)
    return 4;
  return messages.about(reason) == 1 ? 0 : 5;
}

/// Nothing half-written is left, what was there is whole, and once the limit is lifted the cache is as good as new.
void check_after(const fs::path& folder) {
  CHECK(fs::is_empty(folder / "tmp"));
  const Store store(folder, Store::Access::read_write);
  for (const auto& file : store.list()) {
    const auto decoded = store.read(file.path);
    REQUIRE(decoded);
    CHECK(decoded->state == cache::Decoding::good);
  }
  CountingCompiler compiler;
  Messages messages;
  KernelCache({.folder = folder}, messages.callback(), compiler.toolchain()).get(spec_number(2));
  CHECK(KernelCache({.folder = folder}, messages.callback(), compiler.toolchain()).get(spec_number(2))->origin ==
        KernelOrigin::disk);
  CHECK(messages.all.empty());
}

void publish_first(const fs::path& folder) {
  CountingCompiler compiler;
  KernelCache({.folder = folder}, {}, compiler.toolchain()).get(spec_number(1));
}

} // namespace

TEST_CASE("a quota that is reached at any step of publishing costs one warning and nothing else") {
  for (const int system_call : {SYS_openat, SYS_write, SYS_fsync, SYS_rename}) {
    CAPTURE(system_call);
    const TemporaryFolder folder;
    publish_first(folder.path);
    const ::pid_t child = start_child(
        [&] { return exceed_quota_at(system_call) ? use_at_limit(folder.path, "quota exceeded") : no_seccomp; });
    const int status = wait_for(child);
    REQUIRE(WIFEXITED(status));
    if (WEXITSTATUS(status) == no_seccomp) {
      MESSAGE("SKIPPED: this machine does not allow seccomp filters");
      return;
    }
    CHECK(WEXITSTATUS(status) == 0);
    check_after(folder.path);
  }
}

TEST_CASE("a quota without room for the cache's folder costs one warning and nothing else") {
  const TemporaryFolder folder;
  const ::pid_t child = start_child([&] {
    if (!exceed_quota_at(SYS_mkdir))
      return no_seccomp;
    CountingCompiler compiler;
    Messages messages;
    KernelCache cache({.folder = folder.path / "cache"}, messages.callback(), compiler.toolchain());
    for (const int number : {1, 2})
      if (cache.get(spec_number(number))->cubin != expected_cubin(spec_number(number)))
        return 1;
    return messages.all.size() == 1 && messages.about("quota exceeded") == 1 ? 0 : 2;
  });
  const int status = wait_for(child);
  REQUIRE(WIFEXITED(status));
  if (WEXITSTATUS(status) == no_seccomp)
    MESSAGE("SKIPPED: this machine does not allow seccomp filters");
  else
    CHECK(WEXITSTATUS(status) == 0);
}

TEST_CASE("a disk without room for another file or folder costs one warning and nothing else") {
  const TemporaryFolder folder;
  // The root, v1, tmp, a shard and its entry are five.
  if (::mount("none", folder.path.c_str(), "tmpfs", 0, "size=10m,nr_inodes=6,mode=0700") != 0) {
    MESSAGE("SKIPPED: this machine does not allow mounting a small disk");
    return;
  }
  publish_first(folder.path);
  const ::pid_t child = start_child([&] { return use_at_limit(folder.path, "No space left"); });
  CHECK(wait_for(child) == 0);
  CHECK(fs::is_empty(folder.path / "tmp"));
  CHECK(::umount(folder.path.c_str()) == 0);
}

TEST_CASE("a process that may not write large files keeps small ones, and is not killed by the signal") {
  const TemporaryFolder folder;
  {
    CountingCompiler large;
    large.cubin_bytes = 100'000;
    KernelCache({.folder = folder.path}, {}, large.toolchain()).get(spec_number(1));
  }
  const ::pid_t child = start_child([&] {
    const ::rlimit limit{50'000, 50'000}; // as `ulimit -f` and batch systems set it; SIGXFSZ ends a process
    if (::setrlimit(RLIMIT_FSIZE, &limit) != 0)
      return 20;
    if (const int wrong = use_at_limit(folder.path, "File too large", 100'000); wrong != 0)
      return wrong;
    CountingCompiler small;
    KernelCache({.folder = folder.path}, {}, small.toolchain()).get(spec_number(7));
    return KernelCache({.folder = folder.path}, {}, small.toolchain()).get(spec_number(7))->origin == KernelOrigin::disk
               ? 0
               : 21;
  });
  CHECK(wait_for(child) == 0);
  check_after(folder.path);
}
