#include "bundle.hpp"

#include <algorithm>
#include <map>
#include <memory>

#include <archive.h>
#include <archive_entry.h>
#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "signature.hpp"
#include <tilewright/error.hpp>

namespace tilewright::tools {
namespace {

constexpr const char* manifest_name = "manifest.json";
constexpr const char* signature_name = "manifest.sig";
constexpr const char* format_name = "tilewright bundle 1";
constexpr std::size_t most_bytes = std::size_t{4} << 30; // of a bundle's files, so that a small file cannot fill memory
constexpr const char* compression_level = "12";

struct FreeArchive {
  void operator()(::archive* file) const { ::archive_free(file); }
  void operator()(::archive_entry* entry) const { ::archive_entry_free(entry); }
};
using Archive = std::unique_ptr<::archive, FreeArchive>;

[[noreturn]] void archive_failed(const char* what, ::archive* file) {
  const char* const reason = ::archive_error_string(file);
  throw Error(ErrorCode::internal, fmt::format("{}: {}", what, reason == nullptr ? "no reason given" : reason),
              "libarchive with zstd is needed", "install libarchive 3.6 or later");
}

[[noreturn]] void refuse_bundle(const std::filesystem::path& path, std::string_view reason) {
  throw Error(ErrorCode::cache_corrupt, fmt::format("the bundle {} is not used: {}", path.string(), reason),
              "a whole bundle that `tilewright cache export` wrote is allowed", "fetch or export it again");
}

::la_ssize_t append(::archive*, void* to, const void* bytes, std::size_t length) {
  static_cast<std::string*>(to)->append(static_cast<const char*>(bytes), length);
  return static_cast<::la_ssize_t>(length);
}

/// Nothing of the machine, the user or the time goes in.
void add_file(::archive* file, const std::string& name, const std::string& bytes) {
  const std::unique_ptr<::archive_entry, FreeArchive> entry(::archive_entry_new());
  ::archive_entry_set_pathname(entry.get(), name.c_str());
  ::archive_entry_set_size(entry.get(), static_cast<std::int64_t>(bytes.size()));
  ::archive_entry_set_filetype(entry.get(), AE_IFREG);
  ::archive_entry_set_perm(entry.get(), 0600);
  ::archive_entry_set_mtime(entry.get(), 0, 0);
  if (::archive_write_header(file, entry.get()) != ARCHIVE_OK ||
      ::archive_write_data(file, bytes.data(), bytes.size()) != static_cast<::la_ssize_t>(bytes.size()))
    archive_failed("a file cannot be put into the bundle", file);
}

std::map<std::string, std::string> unpack(const std::filesystem::path& path) {
  const Archive file(::archive_read_new());
  ::archive_read_support_filter_zstd(file.get());
  ::archive_read_support_format_tar(file.get());
  constexpr std::size_t block = 1 << 16;
  if (::archive_read_open_filename(file.get(), path.c_str(), block) != ARCHIVE_OK)
    refuse_bundle(path, ::archive_error_string(file.get()));
  std::map<std::string, std::string> files;
  std::size_t total = 0;
  ::archive_entry* entry = nullptr;
  int status = ARCHIVE_OK;
  while ((status = ::archive_read_next_header(file.get(), &entry)) == ARCHIVE_OK) {
    const char* const name = ::archive_entry_pathname(entry);
    if (name == nullptr || ::archive_entry_filetype(entry) != AE_IFREG)
      refuse_bundle(path, "it holds something that is no file");
    std::string bytes;
    char buffer[block];
    ::la_ssize_t got = 0;
    while ((got = ::archive_read_data(file.get(), buffer, sizeof buffer)) > 0) {
      bytes.append(buffer, static_cast<std::size_t>(got));
      if ((total += static_cast<std::size_t>(got)) > most_bytes)
        refuse_bundle(path, "it is larger than 4 GiB");
    }
    if (got < 0)
      refuse_bundle(path, ::archive_error_string(file.get()));
    if (!files.emplace(name, std::move(bytes)).second)
      refuse_bundle(path, fmt::format("it holds '{}' twice", name));
  }
  if (status != ARCHIVE_EOF)
    refuse_bundle(path, ::archive_error_string(file.get()));
  return files;
}

} // namespace

std::string make_bundle(std::vector<NamedFile> files, const std::filesystem::path& private_key) {
  std::sort(files.begin(), files.end());
  nlohmann::json manifest = {{"format", format_name}, {"files", nlohmann::json::array()}};
  for (const auto& [name, bytes] : files)
    manifest["files"].push_back({{"name", name}, {"bytes", bytes.size()}, {"sha256", sha256(bytes)}});
  const std::string text = manifest.dump(1) + "\n";

  std::string bundle;
  const Archive file(::archive_write_new());
  ::archive_write_set_format_ustar(file.get());
  ::archive_write_add_filter_zstd(file.get());
  ::archive_write_set_bytes_in_last_block(file.get(), 1); // no zeros behind the last frame
  ::archive_write_set_filter_option(file.get(), "zstd", "compression-level", compression_level);
  if (::archive_write_open(file.get(), &bundle, nullptr, append, nullptr) != ARCHIVE_OK)
    archive_failed("a bundle cannot be begun", file.get());
  add_file(file.get(), manifest_name, text);
  if (!private_key.empty())
    add_file(file.get(), signature_name, sign(text, private_key));
  for (const auto& [name, bytes] : files)
    add_file(file.get(), name, bytes);
  if (::archive_write_close(file.get()) != ARCHIVE_OK)
    archive_failed("a bundle cannot be ended", file.get());
  return bundle;
}

std::vector<NamedFile> read_bundle(const std::filesystem::path& path, const std::filesystem::path& public_key) {
  std::map<std::string, std::string> files = unpack(path);
  const auto text = files.find(manifest_name), signature = files.find(signature_name);
  if (text == files.end())
    refuse_bundle(path, "it has no manifest.json");
  if (!public_key.empty() && (signature == files.end() || !is_signed(text->second, signature->second, public_key)))
    refuse_bundle(path, fmt::format("it is not signed with the key that belongs to {}", public_key.string()));
  const auto manifest = nlohmann::json::parse(text->second, nullptr, false);
  if (!manifest.is_object() || manifest.value("format", "") != format_name || !manifest.contains("files"))
    refuse_bundle(path, "its manifest is of another format");
  files.erase(text);
  files.erase(signature_name);
  std::vector<NamedFile> checked;
  for (const auto& listed : manifest.at("files")) {
    const auto file = files.find(listed.value("name", ""));
    if (file == files.end())
      refuse_bundle(path, fmt::format("'{}' is listed and not there", listed.value("name", "")));
    if (sha256(file->second) != listed.value("sha256", ""))
      refuse_bundle(path, fmt::format("the digest of '{}' is another", file->first));
    checked.emplace_back(file->first, std::move(file->second));
    files.erase(file);
  }
  if (!files.empty())
    refuse_bundle(path, fmt::format("'{}' is there and not listed", files.begin()->first));
  return checked;
}

} // namespace tilewright::tools
