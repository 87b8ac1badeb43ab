// The kernel cache's settings. The protocol is in docs/cache.md.
#pragma once

#include <chrono>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <string>

namespace tilewright {

/// What a cache miss may do.
enum class Jit : std::uint8_t {
  allow, // compile
  warn,  // compile, and send a message
  forbid // throw jit_forbidden, naming the warmup command that would have built it
};

/// A tier that several machines share, asked where neither memory nor disk has a kernel. Implementations are
/// thread-safe, and give up after a short time: longer than a compile would take is too long.
class RemoteCache {
public:
  virtual ~RemoteCache() = default;
  /// The bytes of an entry's file by its name below the cache's folder, "v1/ab/...", already verified where the tier
  /// has signatures; nothing where it has no such file. Throws where it cannot be reached, or is not to be trusted:
  /// then it is left alone for the rest of the process.
  virtual std::optional<std::string> fetch(const std::string& name) = 0;
};

struct CacheOptions {
  std::filesystem::path folder{}; // empty: $TILEWRIGHT_CACHE, else $XDG_CACHE_HOME/tilewright, else ~/.cache/tilewright
  std::filesystem::path read_only_folder{}; // second layer, never written; empty: $TILEWRIGHT_CACHE_RO, else none
  Jit jit = Jit::allow;                     // overridden by $TILEWRIGHT_JIT=allow|warn|forbid where that is set
  std::uint64_t maximum_bytes = std::uint64_t{1} << 30; // least recently used entries go first
  std::uint64_t maximum_entries = 10'000;
  std::shared_ptr<RemoteCache> remote{};           // none: this machine's own cache only
  std::chrono::milliseconds lock_patience{20'000}; // how long to wait for another process that compiles the same kernel
};

/// What a cache has done since it was made (in a forked child: since the fork), one count for each kernel that it was
/// asked for. Runtime::cache_statistics() gives it. A runtime asks its cache once for each kernel and keeps what it has
/// loaded, so that its calls count nothing: a steady process stands still in all of these.
struct CacheStatistics {
  std::uint64_t memory_hits = 0;
  std::uint64_t disk_hits = 0;       // verified; the read-only layer's included
  std::uint64_t read_only_hits = 0;  // of disk_hits
  std::uint64_t remote_hits = 0;     // verified, and from then on this disk's
  std::uint64_t compiles = 0;        // 0 is what a warmed fleet wants to see
  std::uint64_t joined = 0;          // waited for another thread's work on the same kernel
  std::uint64_t lock_timeouts = 0;   // compiled although another process held the lock
  std::uint64_t corrupt_entries = 0; // found damaged, and set aside
  std::uint64_t failed_writes = 0;   // compiled or fetched, and not kept

  friend bool operator==(const CacheStatistics&, const CacheStatistics&) = default;
};

} // namespace tilewright
