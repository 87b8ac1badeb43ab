// What `tilewright cache` does, one function an action.
#pragma once

#include <cstdint>
#include <filesystem>
#include <limits>
#include <string>
#include <vector>

#include "cache/store.hpp"

namespace CLI {
class App;
}

namespace tilewright::tools {

/// The options of all actions; each reads its own.
struct CacheActionOptions {
  std::filesystem::path folder;                          // --cache
  std::string key;                                       // show: a key or its beginning
  std::filesystem::path bundle, private_key, public_key; // export, import
  std::string architecture;                              // export: only this one's entries
  std::string remote;                                    // push: the address
  bool json = false, recompile = false;                  // recompile: verify
  std::uint64_t most_bytes = std::numeric_limits<std::uint64_t>::max(), most_entries = most_bytes; // prune

  [[nodiscard]] cache::Store open(cache::Store::Access access) const { return {cache::cache_folder(folder), access}; }
};

void list_cache(const CacheActionOptions& options);
void show_cache_entry(const CacheActionOptions& options);
void print_cache_statistics(const CacheActionOptions& options);
void prune_cache(const CacheActionOptions& options);
/// Writes every sound entry into a bundle (bundle.hpp).
void export_cache(const CacheActionOptions& options);
/// Puts every sound entry into a remote cache (http_cache.hpp).
void push_cache(const CacheActionOptions& options);
/// Publishes a bundle's entries, once all of them are found good. Throws cache_corrupt, with nothing published.
void import_cache(const CacheActionOptions& options);
/// Throws cache_corrupt where an entry is corrupt, or is not what its spec compiles to.
void verify_cache(const CacheActionOptions& options);

} // namespace tilewright::tools
