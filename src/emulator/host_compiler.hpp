// The host's C++ compiler: emulator source -> shared library.
#pragma once

#include <filesystem>
#include <string>
#include <vector>

namespace tilewright::emulator {

/// Every option that can change what is compiled, in order, the language and the sanitizers of this build included.
/// poison_registers: local variables that are not initialised hold a pattern.
std::vector<std::string> compile_options(bool poison_registers);

/// What of this host the code depends on: the processor's instruction sets.
std::string host_identity();

/// The command's first words: $CXX, else the first of c++, g++ and clang++ that exists. Throws unsupported where there
/// is none.
std::vector<std::string> find_host_compiler();

/// Compiles source to a shared library. Both are files in a folder that the caller owns. Returns what the compiler
/// said. Throws unsupported (no compiler) and compile_failed, with its log.
std::string compile_shared_library(const std::filesystem::path& source, const std::filesystem::path& library,
                                   const std::vector<std::string>& options);

} // namespace tilewright::emulator
