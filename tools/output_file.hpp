// Files that a command leaves behind: whole or not at all.
#pragma once

#include <cstddef>
#include <filesystem>
#include <span>
#include <string_view>

namespace tilewright::tools {

/// Throws invalid_argument where nothing could be written to this path: asked before the work begins. option names
/// what the path came from, for example "--output".
void check_output(const std::filesystem::path& path, std::string_view option);

/// Writes beside the path and renames, so that readers see the old file or the whole new one. Something that is no
/// regular file (a pipe, /dev/stdout) is written to as it is.
void write_output(const std::filesystem::path& path, std::span<const std::byte> bytes);
void write_output(const std::filesystem::path& path, std::string_view text);

} // namespace tilewright::tools
