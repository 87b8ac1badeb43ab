// The ELF build id: 20 bytes by which a linker names one build of a library.
#pragma once

#include <filesystem>
#include <string>

namespace tilewright::compiler {

/// Hexadecimal digits; empty where the file is no 64-bit ELF file for this machine, or has no build id. Reads a few
/// hundred bytes: naming a library of 100 MB takes microseconds, and no code of it runs.
std::string build_id_of_file(const std::filesystem::path& path);

/// The same of the loaded library that this function belongs to, from its mapped program headers; empty where those do
/// not lead to it.
std::string build_id_of_loaded(const void* function);

} // namespace tilewright::compiler
