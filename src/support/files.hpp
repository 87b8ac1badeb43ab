// Files, read and written whole. Every failure is an Error (invalid_argument) with the path and the system's reason.
#pragma once

#include <cstddef>
#include <filesystem>
#include <optional>
#include <span>
#include <string>
#include <utility>

#include <sys/stat.h>

namespace tilewright::support {

/// Closes its descriptor; -1 is none.
class FileDescriptor {
public:
  FileDescriptor() = default;
  explicit FileDescriptor(int descriptor) noexcept : descriptor_(descriptor) {}
  ~FileDescriptor();
  FileDescriptor(FileDescriptor&& other) noexcept : descriptor_(std::exchange(other.descriptor_, -1)) {}
  FileDescriptor& operator=(FileDescriptor&& other) noexcept {
    std::swap(descriptor_, other.descriptor_);
    return *this;
  }

  [[nodiscard]] int get() const noexcept { return descriptor_; }
  [[nodiscard]] explicit operator bool() const noexcept { return descriptor_ >= 0; }

private:
  int descriptor_ = -1;
};

/// The file's bytes; symbolic links are followed.
std::string read_file(const std::filesystem::path& path);

/// What is known of a file that was read without following a link.
struct OwnFile {
  std::string bytes;
  struct ::stat status {};
};

/// The bytes of a regular file that this user (or root) owns and nobody else may write to: O_NOFOLLOW, and what
/// is checked is what was opened. Nothing where there is no such file; throws where there is something else in its
/// place. allow_shared accepts other owners and writers.
std::optional<OwnFile> read_own_file(const std::filesystem::path& path, bool allow_shared = false);

/// Creates the folder and its parents with mode 0700 where they are missing.
void create_private_folder(const std::filesystem::path& folder);

/// Throws unless the folder is a folder, no link, owned by this user (or root), and others may not write to it.
void check_private_folder(const std::filesystem::path& folder);

/// Publishes a file: a new file in temporary_folder (in the same file system as path), fsync, rename. Readers see the
/// old file, or all of the new one; after a crash too. Mode 0600.
void write_atomically(const std::filesystem::path& path, std::span<const std::byte> bytes,
                      const std::filesystem::path& temporary_folder);

/// The same, with the temporary file beside path.
void write_atomically(const std::filesystem::path& path, std::span<const std::byte> bytes);

} // namespace tilewright::support
