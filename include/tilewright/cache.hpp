// The kernel cache's settings. The protocol is in docs/cache.md.
#pragma once

#include <chrono>
#include <cstdint>
#include <filesystem>

namespace tilewright {

/// What a cache miss may do.
enum class Jit : std::uint8_t {
  allow, // compile
  warn,  // compile, and send a message
  forbid // throw jit_forbidden, naming the warmup command that would have built it
};

struct CacheOptions {
  std::filesystem::path folder{}; // empty: $TILEWRIGHT_CACHE, else $XDG_CACHE_HOME/tilewright, else ~/.cache/tilewright
  std::filesystem::path read_only_folder{}; // second layer, never written; empty: $TILEWRIGHT_CACHE_RO, else none
  Jit jit = Jit::allow;                     // overridden by $TILEWRIGHT_JIT=allow|warn|forbid where that is set
  std::uint64_t maximum_bytes = std::uint64_t{1} << 30; // least recently used entries go first
  std::uint64_t maximum_entries = 10'000;
  std::chrono::milliseconds lock_patience{20'000}; // how long to wait for another process that compiles the same kernel
};

} // namespace tilewright
