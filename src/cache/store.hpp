// A cache's folder: which file holds which entry, reading, publishing, setting aside, pruning.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "cache/entry.hpp"
#include "support/hash.hpp"

namespace tilewright::cache {

/// What the folder may grow to.
struct Limits {
  std::uint64_t bytes;
  std::uint64_t entries;
};

struct StoredFile {
  std::filesystem::path path;
  std::uint64_t bytes = 0;
  std::int64_t published = 0; // nanoseconds since 1970
  std::int64_t last_used = 0; // the same, to the hour; never before it was published, never in the future
};

struct PruneResult {
  std::uint64_t removed_entries = 0, removed_bytes = 0, swept_temporaries = 0;
  std::uint64_t left_entries = 0, left_bytes = 0;
};

/// Layout: v1/ab/<rest of key>-<hash of compiler identity>, tmp/ (being written), quarantine/ (set aside).
/// Thread-safe and safe beside other processes: files appear by rename and vanish by unlink, and a reader checks the
/// whole of what it has opened.
class Store {
public:
  enum class Access { read_write, read_only };

  /// The folder is created where it is missing (read_write). Throws where it cannot be used, or where it is not
  /// trusted: another owner than this user or root, or others may write to it; $TILEWRIGHT_CACHE_ALLOW_SHARED=1 allows
  /// both.
  Store(const std::filesystem::path& folder, Access access);

  [[nodiscard]] const std::filesystem::path& folder() const noexcept { return folder_; }
  [[nodiscard]] bool writable() const noexcept { return access_ == Access::read_write; }

  /// The file of one compiler's entry.
  [[nodiscard]] std::filesystem::path path_of(const support::Hash128& key, std::string_view compiler_identity) const;
  /// The files of every compiler's entry, newest first.
  [[nodiscard]] std::vector<std::filesystem::path> paths_of(const support::Hash128& key) const;

  /// Reads and checks a file; nothing where there is none. Bad files come back as corrupt or other_version: see
  /// decode(). Notes the use of a good one (at most once an hour). Corrupt ones are set aside where the store is
  /// writable.
  [[nodiscard]] std::optional<Decoded> read(const std::filesystem::path& path) const;

  /// Makes the entry appear at once and whole, in place of one that was there. Throws where it cannot be written.
  void publish(const CacheEntry& entry) const;

  /// Every entry, unread.
  [[nodiscard]] std::vector<StoredFile> list() const;

  /// Removes the least recently used entries while one of the limits is exceeded (then a tenth more, so that not every
  /// publish removes one), temporary files older than an hour, and all but the newest files that were set aside.
  PruneResult prune(const Limits& limits) const;

private:
  [[nodiscard]] std::filesystem::path shard_of(std::string_view digits) const;
  void set_aside(const std::filesystem::path& path) const;
  std::uint64_t sweep_temporaries() const;
  void trim_quarantine() const;

  std::filesystem::path folder_;
  Access access_;
  bool allow_shared_;
};

/// An entry's name in a remote cache, the same as below a cache's folder. Without a compiler: "v1/ab/<rest>-latest",
/// under which `cache push` puts an entry a second time.
std::string remote_name(const support::Hash128& key, const std::optional<std::string>& compiler_identity);

/// The folder that the options name: folder, else $TILEWRIGHT_CACHE, else $XDG_CACHE_HOME/tilewright, else
/// ~/.cache/tilewright. Throws invalid_argument where none of them is set.
std::filesystem::path cache_folder(const std::filesystem::path& named);

/// The read-only layer: named, else $TILEWRIGHT_CACHE_RO, else empty.
std::filesystem::path read_only_folder(const std::filesystem::path& named);

} // namespace tilewright::cache
