#include "support/files.hpp"

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <chrono>
#include <climits>
#include <cstring>
#include <system_error>

#include <fcntl.h>
#include <sys/resource.h>
#include <unistd.h>

#include <fmt/format.h>

#include <tilewright/error.hpp>

namespace tilewright::support {
namespace {

namespace fs = std::filesystem;

constexpr ::mode_t private_file = S_IRUSR | S_IWUSR;
constexpr ::mode_t private_folder = S_IRWXU;

/// An Error with the reason in errno.
Error failure(const char* action, const fs::path& path) {
  const int reason = errno;
  return {ErrorCode::invalid_argument,
          fmt::format("cannot {} '{}': {}", action, path.string(), std::generic_category().message(reason)),
          "a path that this user may use is allowed", "correct the path, its permissions or the disk's free space"};
}

Error untrusted(const fs::path& path, std::string_view reason) {
  return {ErrorCode::invalid_argument, fmt::format("'{}' {}", path.string(), reason),
          "only what this user or root owns, and nobody else may write to, is trusted",
          "remove it, or correct its owner and permissions"};
}

bool trusted_owner(const struct ::stat& status) { return status.st_uid == ::geteuid() || status.st_uid == 0; }
bool others_may_write(const struct ::stat& status) { return (status.st_mode & (S_IWGRP | S_IWOTH)) != 0; }

std::string read_all(int descriptor, std::size_t expected, const fs::path& path) {
  std::string bytes;
  std::size_t used = 0;
  for (;;) {
    // One byte more than expected, so that the last read sees the end.
    bytes.resize(std::max(used + 1, expected + 1));
    const ::ssize_t count = ::read(descriptor, bytes.data() + used, bytes.size() - used);
    if (count < 0 && errno == EINTR)
      continue;
    if (count < 0)
      throw failure("read", path);
    if (count == 0)
      break;
    used += static_cast<std::size_t>(count);
    expected = std::max(expected, used == bytes.size() ? 2 * used : used);
  }
  bytes.resize(used);
  return bytes;
}

/// A process that writes past its limit of a file's size (ulimit -f) is killed by a signal, unless it expects one.
void check_size_limit(std::size_t bytes, const fs::path& path) {
  ::rlimit limit{};
  if (::getrlimit(RLIMIT_FSIZE, &limit) != 0 || limit.rlim_cur == RLIM_INFINITY || bytes <= limit.rlim_cur)
    return;
  errno = EFBIG;
  throw failure("write", path);
}

void write_all(int descriptor, std::span<const std::byte> bytes, const fs::path& path) {
  while (!bytes.empty()) {
    const ::ssize_t count = ::write(descriptor, bytes.data(), bytes.size());
    if (count < 0 && errno == EINTR)
      continue;
    if (count < 0)
      throw failure("write", path);
    bytes = bytes.subspan(static_cast<std::size_t>(count));
  }
}

/// A name that no other process or thread, on this host or another, uses at the same time.
std::string unique_name() {
  static std::atomic<unsigned> counter{0};
  const auto now = std::chrono::steady_clock::now().time_since_epoch().count();
  char host[HOST_NAME_MAX + 1] = {};
  ::gethostname(host, HOST_NAME_MAX);
  return fmt::format(".tmp-{}-{}-{:x}-{}", host, ::getpid(), now, counter++);
}

/// Makes the rename itself survive a power cut. A file system that cannot do this for folders loses only that.
void sync_folder(const fs::path& folder) {
  const FileDescriptor descriptor(::open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (descriptor)
    ::fsync(descriptor.get());
}

} // namespace

FileDescriptor::~FileDescriptor() {
  if (descriptor_ >= 0)
    ::close(descriptor_);
}

std::string read_file(const fs::path& path) {
  const FileDescriptor descriptor(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
  struct ::stat status {};
  if (!descriptor || ::fstat(descriptor.get(), &status) != 0)
    throw failure("read", path);
  return read_all(descriptor.get(), static_cast<std::size_t>(status.st_size), path);
}

std::optional<OwnFile> read_own_file(const fs::path& path, bool allow_shared) {
  // O_NONBLOCK: a named pipe in the file's place must not hang the reader.
  const FileDescriptor descriptor(::open(path.c_str(), O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC));
  if (!descriptor) {
    if (errno == ENOENT || errno == ENOTDIR)
      return std::nullopt;
    if (errno == ELOOP)
      throw untrusted(path, "is a symbolic link");
    throw failure("read", path);
  }
  OwnFile file;
  if (::fstat(descriptor.get(), &file.status) != 0)
    throw failure("read", path);
  if (!S_ISREG(file.status.st_mode))
    throw untrusted(path, "is not a regular file");
  if (!allow_shared && !trusted_owner(file.status))
    throw untrusted(path, fmt::format("belongs to user {}", file.status.st_uid));
  if (!allow_shared && others_may_write(file.status))
    throw untrusted(path, "may be written to by others");
  file.bytes = read_all(descriptor.get(), static_cast<std::size_t>(file.status.st_size), path);
  return file;
}

void create_private_folder(const fs::path& folder) {
  if (::mkdir(folder.c_str(), private_folder) == 0 || errno == EEXIST)
    return;
  if (errno != ENOENT || !folder.has_parent_path())
    throw failure("create", folder);
  create_private_folder(folder.parent_path());
  if (::mkdir(folder.c_str(), private_folder) != 0 && errno != EEXIST)
    throw failure("create", folder);
}

void check_private_folder(const fs::path& folder) {
  struct ::stat status {};
  if (::lstat(folder.c_str(), &status) != 0)
    throw failure("read", folder);
  if (!S_ISDIR(status.st_mode))
    throw untrusted(folder, "is not a folder");
  if (!trusted_owner(status))
    throw untrusted(folder, fmt::format("belongs to user {}", status.st_uid));
  if (others_may_write(status))
    throw untrusted(folder, "may be written to by others");
}

void write_atomically(const fs::path& path, std::span<const std::byte> bytes, const fs::path& temporary_folder) {
  const fs::path temporary = temporary_folder / unique_name();
  try {
    const FileDescriptor descriptor(
        ::open(temporary.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, private_file));
    if (!descriptor)
      throw failure("create", temporary);
    check_size_limit(bytes.size(), temporary);
    write_all(descriptor.get(), bytes, temporary);
    if (::fsync(descriptor.get()) != 0)
      throw failure("write", temporary);
    if (::rename(temporary.c_str(), path.c_str()) != 0)
      throw failure("write", path);
  } catch (...) {
    ::unlink(temporary.c_str());
    throw;
  }
  sync_folder(path.has_parent_path() ? path.parent_path() : fs::path("."));
}

void write_atomically(const fs::path& path, std::span<const std::byte> bytes) {
  write_atomically(path, bytes, path.has_parent_path() ? path.parent_path() : fs::path("."));
}

} // namespace tilewright::support
