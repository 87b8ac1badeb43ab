// The loader's table of installed libraries, /etc/ld.so.cache.
#pragma once

#include <filesystem>
#include <string_view>
#include <vector>

namespace tilewright::compiler {

/// The files that the table lists under this name, in its order. Empty where there is no table in the known format
/// (glibc 2.2 and later, "glibc-ld.so.cache1.1"): the other places of the search remain.
std::vector<std::filesystem::path> loader_cache_lookup(std::string_view name,
                                                       const std::filesystem::path& table = "/etc/ld.so.cache");

} // namespace tilewright::compiler
