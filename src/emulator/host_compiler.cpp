#include "emulator/host_compiler.hpp"

#include <fstream>

#include <fmt/format.h>
#include <fmt/ranges.h>

#include "emulator/sanitizers.hpp"
#include "emulator/subprocess.hpp"
#include "support/environment.hpp"
#include "support/text.hpp"
#include <tilewright/error.hpp>

namespace tilewright::emulator {
namespace {

// A sanitizer's run time belongs to one compiler: kernels are then compiled by the one that the library was built with.
#if !defined(TILEWRIGHT_ADDRESS_SANITIZER) && !defined(TILEWRIGHT_THREAD_SANITIZER)
constexpr const char* candidates[] = {"c++", "g++", "clang++"};
#elif defined(__clang__)
constexpr const char* candidates[] = {"clang++"};
#else
constexpr const char* candidates[] = {"g++"};
#endif

std::vector<std::string> words_of(std::string_view command) {
  std::vector<std::string> words;
  for (const std::string_view word : support::split(command, ' '))
    if (!word.empty())
      words.emplace_back(word);
  return words;
}

} // namespace

std::vector<std::string> compile_options(bool poison_registers) {
#if defined(TILEWRIGHT_SANITIZE)
  constexpr const char* optimization = "-O0"; // with -O2, kernels compile four times as long as they then run
#else
  constexpr const char* optimization = "-O2";
#endif
  std::vector<std::string> options = {
      "-x",    "c++",     "-std=c++20",          optimization, "-march=native",
      "-fPIC", "-shared", "-fvisibility=hidden", "-Wall",      "-Wno-unknown-pragmas"}; // #pragma unroll
  if (poison_registers)
    options.emplace_back("-ftrivial-auto-var-init=pattern");
#if defined(TILEWRIGHT_SANITIZE)
  options.insert(options.end(),
                 {"-g1", "-fsanitize=" TILEWRIGHT_SANITIZE, "-fno-omit-frame-pointer", "-fno-sanitize-recover=all"});
#endif
  return options;
}

std::string host_identity() {
  // x86 says "flags", arm64 "Features"; every core has the same.
  std::ifstream file("/proc/cpuinfo");
  for (std::string line; std::getline(file, line);)
    if (line.starts_with("flags") || line.starts_with("Features"))
      return line;
  return "unknown processor";
}

std::vector<std::string> find_host_compiler() {
  if (const auto named = support::environment("CXX")) {
    std::vector<std::string> words = words_of(*named);
    if (!words.empty() && !find_program(words[0]).empty())
      return words;
    throw Error(ErrorCode::unsupported, fmt::format("CXX names \"{}\", which is not a program", *named),
                "the emulator compiles kernels with a C++20 compiler", "correct CXX, or unset it");
  }
  for (const char* const candidate : candidates)
    if (!find_program(candidate).empty())
      return {candidate};
  throw Error(
      ErrorCode::unsupported,
      fmt::format("no host C++ compiler: $CXX is not set, and none of {} is in $PATH", fmt::join(candidates, ", ")),
      "the emulator compiles kernels with g++ 12, clang 14 or newer", "install one (Debian: apt install g++)");
}

std::string compile_shared_library(const std::filesystem::path& source, const std::filesystem::path& library,
                                   const std::vector<std::string>& options) {
  std::vector<std::string> command = find_host_compiler();
  command.insert(command.end(), options.begin(), options.end());
  command.insert(command.end(), {source.string(), "-o", library.string()});
  ProcessResult result = run_process(command, source.parent_path());
  if (result.status == -1)
    throw Error(ErrorCode::unsupported, fmt::format("{} could not be started", command[0]),
                "the emulator compiles kernels with a C++20 compiler", "set CXX to one that runs");
  if (result.status != 0)
    throw Error(ErrorCode::compile_failed,
                fmt::format("\"{}\" ended with status {}:\n{}", fmt::join(command, " "), result.status, result.output),
                "generated sources compile with g++ 12, clang 14 and newer",
                "use such a compiler (CXX); with one, report this as a fault of tilewright");
  return std::move(result.output);
}

} // namespace tilewright::emulator
