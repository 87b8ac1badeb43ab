#include "cache/store.hpp"

#include <algorithm>
#include <span>
#include <system_error>

#include <fcntl.h>
#include <sys/stat.h>

#include <fmt/format.h>

#include "support/environment.hpp"
#include "support/files.hpp"
#include <tilewright/error.hpp>

namespace tilewright::cache {
namespace {

namespace fs = std::filesystem;

constexpr const char* entries_folder = "v1"; // by format: an incompatible one gets a folder of its own
constexpr const char* temporary_folder = "tmp";
constexpr const char* quarantine_folder = "quarantine";
constexpr std::size_t shard_digits = 2;

constexpr std::int64_t second = 1'000'000'000; // nanoseconds
constexpr std::int64_t hour = 3600 * second;
constexpr std::size_t most_set_aside = 16;     // kept for whoever wants to know what happened to them
constexpr std::uint64_t headroom_divisor = 10; // pruning goes down to 9/10 of a limit

std::int64_t nanoseconds(const ::timespec& time) { return time.tv_sec * second + time.tv_nsec; }

std::int64_t now() {
  ::timespec time{};
  ::clock_gettime(CLOCK_REALTIME, &time);
  return nanoseconds(time);
}

/// Far from now on either side: a file from the future was written before the clock was set back.
bool stale(std::int64_t time) { return std::abs(now() - time) > hour; }

std::string identity_digits(std::string_view compiler_identity) {
  return fmt::format("{:016x}", support::hash64(std::as_bytes(std::span(compiler_identity))));
}

/// What lies in a folder, links not followed; nothing of a folder that cannot be read.
std::vector<StoredFile> files_in(const fs::path& folder) {
  std::vector<StoredFile> files;
  std::error_code error;
  for (fs::directory_iterator entry(folder, error), end; !error && entry != end; entry.increment(error)) {
    struct ::stat status {};
    if (::lstat(entry->path().c_str(), &status) != 0)
      continue;
    const std::int64_t published = nanoseconds(status.st_mtim), used = nanoseconds(status.st_atim);
    files.push_back({entry->path(), static_cast<std::uint64_t>(status.st_size), published,
                     std::min(std::max(used, published), now())});
  }
  return files;
}

} // namespace

Store::Store(const fs::path& folder, Access access)
    : folder_(folder), access_(access), allow_shared_(support::environment_flag("TILEWRIGHT_CACHE_ALLOW_SHARED")) {
  if (writable())
    support::create_private_folder(folder);
  std::error_code error;
  // The user may have put a link in place of the whole cache; what it leads to is what is checked.
  folder_ = fs::canonical(folder, error);
  if (error)
    throw Error(ErrorCode::invalid_argument, fmt::format("cannot read '{}': {}", folder.string(), error.message()),
                "a folder that this user may use is allowed", "correct the path or its permissions");
  if (writable())
    support::create_private_folder(folder_ / entries_folder);
  if (allow_shared_)
    return;
  support::check_private_folder(folder_);
  for (const char* part : {entries_folder, temporary_folder, quarantine_folder})
    if (fs::exists(fs::symlink_status(folder_ / part, error)))
      support::check_private_folder(folder_ / part);
}

fs::path Store::shard_of(std::string_view digits) const {
  return folder_ / entries_folder / digits.substr(0, shard_digits);
}

fs::path Store::path_of(const support::Hash128& key, std::string_view compiler_identity) const {
  const std::string digits = to_string(key);
  return shard_of(digits) / fmt::format("{}-{}", digits.substr(shard_digits), identity_digits(compiler_identity));
}

std::vector<fs::path> Store::paths_of(const support::Hash128& key) const {
  const std::string digits = to_string(key);
  std::vector<StoredFile> files = files_in(shard_of(digits));
  std::erase_if(files, [prefix = digits.substr(shard_digits) + '-'](const StoredFile& file) {
    return !file.path.filename().string().starts_with(prefix);
  });
  std::sort(files.begin(), files.end(),
            [](const StoredFile& a, const StoredFile& b) { return a.published > b.published; });
  std::vector<fs::path> paths;
  paths.reserve(files.size());
  for (StoredFile& file : files)
    paths.push_back(std::move(file.path));
  return paths;
}

std::optional<Decoded> Store::read(const fs::path& path) const {
  Decoded decoded;
  try {
    const auto file = support::read_own_file(path, allow_shared_);
    if (!file)
      return std::nullopt;
    decoded = decode(file->bytes);
    if (decoded.state == Decoding::good && writable() && stale(nanoseconds(file->status.st_atim))) {
      // Only the access time; that nothing more than pruning's order depends on it is why a failure does not matter.
      const ::timespec times[2] = {{0, UTIME_NOW}, {0, UTIME_OMIT}};
      ::utimensat(AT_FDCWD, path.c_str(), times, AT_SYMLINK_NOFOLLOW);
    }
  } catch (const Error& error) {
    decoded.problem = error.problem();
  }
  if (decoded.state == Decoding::corrupt) {
    decoded.problem = fmt::format("the cache entry '{}' is not used: {}", path.string(), decoded.problem);
    if (writable())
      set_aside(path);
  }
  return decoded;
}

void Store::set_aside(const fs::path& path) const {
  const fs::path aside = folder_ / quarantine_folder / fmt::format("{}.{}", path.filename().string(), now());
  try {
    support::create_private_folder(aside.parent_path());
    std::error_code error;
    fs::rename(path, aside, error);
    // Another process may have published a good entry between our read and our rename: put that back.
    if (const auto moved = error ? std::nullopt : support::read_own_file(aside, allow_shared_);
        moved && decode(moved->bytes).state == Decoding::good)
      fs::rename(aside, path, error);
  } catch (const Error&) { // what cannot be moved is overwritten by the next publish
  }
}

void Store::publish(const CacheEntry& entry) const {
  const std::string file = encode(entry);
  const fs::path path = path_of(entry.key, entry.compiler_identity);
  support::create_private_folder(path.parent_path());
  support::create_private_folder(folder_ / temporary_folder);
  support::write_atomically(path, std::as_bytes(std::span(file)), folder_ / temporary_folder);
}

std::vector<StoredFile> Store::list() const {
  std::vector<StoredFile> all;
  for (const StoredFile& shard : files_in(folder_ / entries_folder))
    for (StoredFile& file : files_in(shard.path))
      all.push_back(std::move(file));
  return all;
}

PruneResult Store::prune(const Limits& limits) const {
  PruneResult result;
  result.swept_temporaries = sweep_temporaries();
  trim_quarantine();
  std::vector<StoredFile> files = list();
  result.left_entries = files.size();
  for (const StoredFile& file : files)
    result.left_bytes += file.bytes;
  if (result.left_entries <= limits.entries && result.left_bytes <= limits.bytes)
    return result;

  const Limits goal{limits.bytes - limits.bytes / headroom_divisor, limits.entries - limits.entries / headroom_divisor};
  std::sort(files.begin(), files.end(),
            [](const StoredFile& a, const StoredFile& b) { return a.last_used < b.last_used; });
  for (const StoredFile& file : files) {
    if (result.left_entries <= goal.entries && result.left_bytes <= goal.bytes)
      break;
    std::error_code error; // another process may have been faster
    if (fs::remove(file.path, error)) {
      ++result.removed_entries;
      result.removed_bytes += file.bytes;
    }
    --result.left_entries;
    result.left_bytes -= file.bytes;
  }
  return result;
}

std::uint64_t Store::sweep_temporaries() const {
  std::uint64_t swept = 0;
  std::error_code error;
  for (const StoredFile& file : files_in(folder_ / temporary_folder))
    if (stale(file.published) && fs::remove(file.path, error))
      ++swept;
  return swept;
}

void Store::trim_quarantine() const {
  std::vector<StoredFile> files = files_in(folder_ / quarantine_folder);
  std::sort(files.begin(), files.end(),
            [](const StoredFile& a, const StoredFile& b) { return a.published > b.published; });
  std::error_code error;
  for (std::size_t index = most_set_aside; index < files.size(); ++index)
    fs::remove(files[index].path, error);
}

std::string remote_name(const support::Hash128& key, const std::optional<std::string>& compiler_identity) {
  const std::string digits = to_string(key);
  return fmt::format("{}/{}/{}-{}", entries_folder, digits.substr(0, shard_digits), digits.substr(shard_digits),
                     compiler_identity ? identity_digits(*compiler_identity) : "latest");
}

fs::path cache_folder(const fs::path& named) {
  if (!named.empty())
    return named;
  if (const auto folder = support::environment("TILEWRIGHT_CACHE"))
    return *folder;
  if (const auto folder = support::environment("XDG_CACHE_HOME"))
    return fs::path(*folder) / "tilewright";
  if (const auto home = support::environment("HOME"))
    return fs::path(*home) / ".cache" / "tilewright";
  throw Error(ErrorCode::invalid_argument, "no folder is named for the cache, and $HOME is not set",
              "CacheOptions::folder, $TILEWRIGHT_CACHE, $XDG_CACHE_HOME and $HOME may name it",
              "set TILEWRIGHT_CACHE to a folder");
}

fs::path read_only_folder(const fs::path& named) {
  return named.empty() ? fs::path(support::environment("TILEWRIGHT_CACHE_RO").value_or("")) : named;
}

} // namespace tilewright::cache
