#include "compiler/loader_cache.hpp"

#include <cstdint>
#include <cstring>
#include <string>

#include "support/files.hpp"
#include <tilewright/error.hpp>

namespace tilewright::compiler {
namespace {

// The layout of glibc's elf/cache.c and sysdeps/generic/dl-cache.h (struct cache_file_new).
constexpr std::string_view magic = "glibc-ld.so.cache1.1";

struct Header {
  char magic[20];
  std::uint32_t libraries;
  std::uint32_t string_bytes;
  std::uint32_t unused[5];
};
static_assert(sizeof(Header) == 48);

struct Library {
  std::int32_t flags;
  std::uint32_t name, path; // offsets of zero-terminated strings from the start of the table
  std::uint32_t os_version;
  std::uint64_t hardware;
};
static_assert(sizeof(Library) == 24);

std::string_view string_at(std::string_view table, std::size_t offset) {
  if (offset >= table.size())
    return {};
  const std::string_view tail = table.substr(offset);
  return tail.substr(0, tail.find('\0'));
}

} // namespace

std::vector<std::filesystem::path> loader_cache_lookup(std::string_view name, const std::filesystem::path& table_path) {
  std::string bytes;
  try {
    bytes = support::read_file(table_path);
  } catch (const Error&) {
    return {};
  }
  // Tables of older systems put the older format in front.
  const std::size_t start = bytes.find(magic);
  if (start == std::string::npos)
    return {};
  const std::string_view table = std::string_view(bytes).substr(start);
  Header header;
  if (table.size() < sizeof header)
    return {};
  std::memcpy(&header, table.data(), sizeof header);
  if (header.libraries > (table.size() - sizeof header) / sizeof(Library))
    return {};
  std::vector<std::filesystem::path> found;
  for (std::size_t index = 0; index < header.libraries; ++index) {
    Library library;
    std::memcpy(&library, table.data() + sizeof header + index * sizeof library, sizeof library);
    if (string_at(table, library.name) == name)
      found.emplace_back(string_at(table, library.path));
  }
  return found;
}

} // namespace tilewright::compiler
