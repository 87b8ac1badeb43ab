// A remote cache on any HTTP server: GET to read, PUT to fill.
#pragma once

#include <chrono>
#include <filesystem>
#include <memory>
#include <string>
#include <string_view>

#include <tilewright/cache.hpp>

namespace tilewright::tools {

struct HttpCacheOptions {
  std::string address{};              // "http://host/folder" or https
  std::filesystem::path public_key{}; // where it is named, entries must be signed with its counterpart
  std::chrono::milliseconds connect_patience{300}, patience{1500};
};

std::shared_ptr<RemoteCache> make_http_cache(HttpCacheOptions options);

/// What $TILEWRIGHT_CACHE_REMOTE and $TILEWRIGHT_CACHE_PUBLIC_KEY name; null where the first is not set.
std::shared_ptr<RemoteCache> remote_cache_of_environment();

/// Throws where the server does not take the file.
void put_remote(const std::string& address, const std::string& name, std::string_view bytes);

/// An entry's file with its Ed25519 signature behind it, so that one GET brings both and neither can be stale.
std::string with_signature(const std::string& entry, const std::filesystem::path& private_key);

} // namespace tilewright::tools
