// Running another program.
#pragma once

#include <filesystem>
#include <string>
#include <vector>

namespace tilewright::emulator {

struct ProcessResult {
  int status = -1;    // exit status; 128 + signal where it was killed; -1 where it could not be started
  std::string output; // stdout and stderr, in the order written
};

/// Runs a program (looked for in $PATH unless its name has a slash) to its end, in `folder`, with stdin empty. No
/// shell is involved.
ProcessResult run_process(const std::vector<std::string>& command, const std::filesystem::path& folder);

/// The file that `program` names: itself where it has a slash, else the first executable of that name in $PATH.
/// Empty where there is none.
std::filesystem::path find_program(const std::string& program);

} // namespace tilewright::emulator
