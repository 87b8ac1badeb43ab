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
  std::string address{};               // "http://host/folder" or https
  std::filesystem::path public_key{};  // where it is named, entries must be signed with its counterpart
  std::filesystem::path authorities{}; // PEM certificates that https servers are trusted by; empty: the system's
  /// Of one read; together at most what a kernel takes to compile (0.3 s and more), so that a server which hangs costs
  /// no more than one that was never asked.
  std::chrono::milliseconds connect_patience{150}, patience{300};
};

std::shared_ptr<RemoteCache> make_http_cache(HttpCacheOptions options);

/// What $TILEWRIGHT_CACHE_REMOTE, _PUBLIC_KEY, _AUTHORITIES and _PATIENCE (milliseconds of one read) name; null where
/// the first is not set. Throws invalid_argument where the last is no number.
std::shared_ptr<RemoteCache> remote_cache_of_environment();

/// The same for a server that is named otherwise, such as the one to fill.
HttpCacheOptions http_options_of_environment(std::string address);

/// Throws where the server does not take the file, which may take a minute.
void put_remote(const HttpCacheOptions& remote, const std::string& name, std::string_view bytes);

/// An entry's file with its Ed25519 signature behind it, so that one GET brings both and neither can be stale.
std::string with_signature(const std::string& entry, const std::filesystem::path& private_key);

} // namespace tilewright::tools
