// tilewright cache export, import, push.
#include <algorithm>
#include <optional>

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "bundle.hpp"
#include "cache_actions.hpp"
#include "http_cache.hpp"
#include "options.hpp"
#include "output_file.hpp"
#include "progress.hpp"
#include "support/files.hpp"
#include <tilewright/error.hpp>

namespace tilewright::tools {
namespace {

using cache::Decoding;
using cache::Store;

std::string name_in(const Store& store, const std::filesystem::path& path) {
  return path.lexically_relative(store.folder()).generic_string();
}

/// 90 for "...@sm_90a/..." and "...@sm_90/...": a GPU runs kernels of both. 0 where the spec names none.
int number_of(const cache::CacheEntry& entry) {
  const std::size_t at = entry.spec.find('@'), end = entry.spec.find('/', at);
  if (at == std::string::npos || end == std::string::npos)
    return 0;
  try {
    return parse_architecture(entry.spec.substr(at + 1, end - at - 1)).number();
  } catch (const Error&) {
    return 0;
  }
}

/// The entry in a bundle's file. Throws where it is none, or would not be found under its name.
cache::CacheEntry entry_of(const Store& store, const NamedFile& file) {
  cache::Decoded decoded = cache::decode(file.second);
  if (decoded.state == Decoding::good &&
      name_in(store, store.path_of(decoded.entry.key, decoded.entry.compiler_identity)) == file.first)
    return std::move(decoded.entry);
  throw Error(ErrorCode::cache_corrupt,
              fmt::format("'{}' of the bundle is no entry of that name: {}", file.first,
                          decoded.problem.empty() ? "its key is another" : decoded.problem),
              "entries that this version of tilewright wrote are allowed", "export the bundle again");
}

} // namespace

void export_cache(const CacheActionOptions& options) {
  const Store store = options.open(Store::Access::read_only);
  std::vector<NamedFile> files;
  std::optional<Architecture> wanted;
  if (!options.architecture.empty())
    wanted = architectures_option(options.architecture).front();
  for (const cache::StoredFile& file : store.list()) {
    const auto decoded = store.read(file.path);
    if (!decoded || decoded->state != Decoding::good)
      continue;
    if (!wanted || wanted->number() == number_of(decoded->entry))
      files.emplace_back(name_in(store, file.path), cache::encode(decoded->entry));
  }
  const std::size_t count = files.size();
  const std::string bundle = make_bundle(std::move(files), options.private_key);
  write_output(options.bundle, bundle);
  if (options.json)
    fmt::print("{}\n", nlohmann::json{{"entries", count}, {"bytes", bundle.size()}}.dump());
  else
    fmt::print("{} entries, {} bytes\n", count, bundle.size());
}

void push_cache(const CacheActionOptions& options) {
  const Store store = options.open(Store::Access::read_only);
  std::vector<cache::StoredFile> files = store.list();
  std::sort(files.begin(), files.end(), [](const cache::StoredFile& a, const cache::StoredFile& b) {
    return a.published < b.published; // so that the newest of several compilers' is the latest
  });
  std::size_t count = 0;
  const HttpCacheOptions remote = http_options_of_environment(options.remote);
  Progress progress("pushing", files.size());
  for (const cache::StoredFile& file : files) {
    const auto decoded = store.read(file.path);
    progress.step();
    if (!decoded || decoded->state != Decoding::good)
      continue;
    const cache::CacheEntry& entry = decoded->entry;
    std::string bytes = cache::encode(entry);
    if (!options.private_key.empty())
      bytes = with_signature(bytes, options.private_key);
    put_remote(remote, cache::remote_name(entry.key, entry.compiler_identity), bytes);
    put_remote(remote, cache::remote_name(entry.key, std::nullopt), bytes);
    ++count;
  }
  progress.finish();
  if (options.json)
    fmt::print("{}\n", nlohmann::json{{"entries", count}}.dump());
  else
    fmt::print("{} entries\n", count);
}

void import_cache(const CacheActionOptions& options) {
  const Store store = options.open(Store::Access::read_write);
  std::vector<cache::CacheEntry> entries;
  for (const NamedFile& file : read_bundle(options.bundle, options.public_key))
    entries.push_back(entry_of(store, file));
  for (const cache::CacheEntry& entry : entries) // all are good: nothing of a bad bundle is published
    store.publish(entry);
  if (options.json)
    fmt::print("{}\n", nlohmann::json{{"entries", entries.size()}}.dump());
  else
    fmt::print("{} entries\n", entries.size());
}

} // namespace tilewright::tools
