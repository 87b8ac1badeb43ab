// tilewright cache list, show, stats, prune.
#include <chrono>
#include <ctime>
#include <map>

#include <fmt/chrono.h>
#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "cache_actions.hpp"
#include "table.hpp"
#include <tilewright/error.hpp>

namespace tilewright::tools {
namespace {

using cache::CacheEntry;
using cache::Decoding;
using cache::Store;
using cache::StoredFile;

std::string time_text(std::int64_t nanoseconds) {
  constexpr std::int64_t per_second = 1'000'000'000;
  return fmt::format("{:%Y-%m-%d %H:%M}", fmt::localtime(static_cast<std::time_t>(nanoseconds / per_second)));
}

std::string size_text(std::uint64_t bytes) { return bytes_text(static_cast<double>(bytes)); }

nlohmann::json to_json(const CacheEntry& entry, const StoredFile& file) {
  return {{"key", support::to_string(entry.key)},
          {"spec", entry.spec},
          {"kernel", entry.kernel_name},
          {"compiler", entry.compiler_version},
          {"compiler_identity", entry.compiler_identity},
          {"registers", entry.report.registers},
          {"spill_bytes", entry.report.spill_bytes},
          {"static_shared_bytes", entry.report.static_shared_bytes},
          {"compile_ms", entry.compile_milliseconds},
          {"cubin_bytes", entry.cubin.size()},
          {"published_ns", file.published},
          {"last_used_ns", file.last_used},
          {"file", file.path.string()}};
}

std::string describe(const CacheEntry& entry, const StoredFile& file) {
  return name_value_lines({{"key", support::to_string(entry.key)},
                           {"spec", entry.spec},
                           {"kernel", entry.kernel_name},
                           {"compiler", fmt::format("NVRTC {} ({})", entry.compiler_version, entry.compiler_identity)},
                           {"compiled in", fmt::format("{:.0f} ms", entry.compile_milliseconds)},
                           {"registers", fmt::to_string(entry.report.registers)},
                           {"spills", fmt::format("{} bytes", entry.report.spill_bytes)},
                           {"static shared memory", fmt::format("{} bytes", entry.report.static_shared_bytes)},
                           {"cubin", size_text(entry.cubin.size())},
                           {"published", time_text(file.published)},
                           {"last used", time_text(file.last_used)},
                           {"file", file.path.string()}});
}

/// The key's digits and the compiler's, as the file's name holds them.
std::string digits_of(const StoredFile& file) {
  return file.path.parent_path().filename().string() + file.path.filename().string();
}

std::string architecture_of(const CacheEntry& entry) {
  const std::size_t at = entry.spec.find('@'), end = entry.spec.find('/', at);
  return at == std::string::npos || end == std::string::npos ? "?" : entry.spec.substr(at + 1, end - at - 1);
}

std::size_t files_in(const std::filesystem::path& folder) {
  std::error_code error;
  std::size_t count = 0;
  for (std::filesystem::directory_iterator file(folder, error), end; !error && file != end; file.increment(error))
    ++count;
  return count;
}

} // namespace

void list_cache(const CacheActionOptions& options) {
  const Store store = options.open(Store::Access::read_only); // looking is no use: it leaves pruning's order alone
  Table table({"spec", "compiler", "cubin", "last used", "key"});
  for (const StoredFile& file : store.list()) {
    const auto decoded = store.read(file.path);
    if (!decoded || decoded->state != Decoding::good)
      continue; // `cache verify` speaks of these
    const CacheEntry& entry = decoded->entry;
    if (options.json)
      fmt::print("{}\n", to_json(entry, file).dump());
    else
      table.add({entry.spec, entry.compiler_version, size_text(entry.cubin.size()), time_text(file.last_used),
                 support::to_string(entry.key)});
  }
  if (!options.json)
    fmt::print("{}", table.text());
}

void show_cache_entry(const CacheActionOptions& options) {
  const Store store = options.open(Store::Access::read_only);
  bool found = false;
  for (const StoredFile& file : store.list()) {
    const auto decoded = digits_of(file).starts_with(options.key) ? store.read(file.path) : std::nullopt;
    if (!decoded || decoded->state != Decoding::good)
      continue;
    found = true;
    nlohmann::json json = to_json(decoded->entry, file);
    json["log"] = decoded->entry.log;
    if (options.json)
      fmt::print("{}\n", json.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace));
    else
      fmt::print("{}{}\n", describe(decoded->entry, file), decoded->entry.log);
  }
  if (!found)
    throw Error(ErrorCode::invalid_argument, fmt::format("no entry's key begins with '{}'", options.key),
                "keys that `tilewright cache list` shows, or their beginnings, are allowed", "correct the key");
}

void print_cache_statistics(const CacheActionOptions& options) {
  const Store store = options.open(Store::Access::read_only);
  struct Sum {
    std::uint64_t entries = 0, bytes = 0;
    void add(std::uint64_t more) { ++entries, bytes += more; }
  } all;
  std::map<std::string, Sum> by_architecture, by_compiler;
  std::uint64_t unusable = 0;
  double compile_seconds = 0;
  for (const StoredFile& file : store.list()) {
    all.add(file.bytes);
    const auto decoded = store.read(file.path);
    if (!decoded || decoded->state != Decoding::good) {
      ++unusable;
      continue;
    }
    by_architecture[architecture_of(decoded->entry)].add(file.bytes);
    by_compiler[decoded->entry.compiler_version].add(file.bytes);
    compile_seconds += decoded->entry.compile_milliseconds / 1e3;
  }
  const auto set_aside = files_in(store.folder() / "quarantine"), unfinished = files_in(store.folder() / "tmp");
  if (options.json) {
    const auto group = [](const std::map<std::string, Sum>& sums) {
      nlohmann::json json = nlohmann::json::object();
      for (const auto& [name, sum] : sums)
        json[name] = {{"entries", sum.entries}, {"bytes", sum.bytes}};
      return json;
    };
    fmt::print("{}\n", nlohmann::json{{"folder", store.folder().string()},
                                      {"entries", all.entries},
                                      {"bytes", all.bytes},
                                      {"unusable", unusable},
                                      {"set_aside", set_aside},
                                      {"unfinished", unfinished},
                                      {"compile_seconds", compile_seconds},
                                      {"architectures", group(by_architecture)},
                                      {"compilers", group(by_compiler)}}
                           .dump());
    return;
  }
  std::vector<std::pair<std::string, std::string>> lines{
      {"folder", store.folder().string()},
      {"entries", fmt::format("{}, {}", all.entries, size_text(all.bytes))},
      {"compiling them took", fmt::format("{:.1f} s", compile_seconds)},
      {"corrupt or of another version", fmt::to_string(unusable)},
      {"set aside", fmt::to_string(set_aside)},
      {"being written", fmt::to_string(unfinished)}};
  for (const auto& [name, sum] : by_architecture)
    lines.emplace_back(name, fmt::format("{}, {}", sum.entries, size_text(sum.bytes)));
  for (const auto& [name, sum] : by_compiler)
    lines.emplace_back("NVRTC " + name, fmt::format("{}, {}", sum.entries, size_text(sum.bytes)));
  fmt::print("{}", name_value_lines(lines));
}

void prune_cache(const CacheActionOptions& options) {
  const cache::PruneResult result =
      options.open(Store::Access::read_write).prune({options.most_bytes, options.most_entries});
  if (options.json)
    fmt::print("{}\n", nlohmann::json{{"removed_entries", result.removed_entries},
                                      {"removed_bytes", result.removed_bytes},
                                      {"swept_temporaries", result.swept_temporaries},
                                      {"left_entries", result.left_entries},
                                      {"left_bytes", result.left_bytes}}
                           .dump());
  else
    fmt::print("{} entries ({}) removed, {} ({}) left\n", result.removed_entries, size_text(result.removed_bytes),
               result.left_entries, size_text(result.left_bytes));
}

} // namespace tilewright::tools
