// Runs the tilewright command as a user does.
#pragma once

#include <cstdio>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <string>

#include <doctest/doctest.h>
#include <fmt/format.h>
#include <nlohmann/json.hpp>
#include <sys/wait.h>

#include "support_temporary_folder.hpp"

struct CommandResult {
  int status = -1;
  std::string out, error;

  [[nodiscard]] nlohmann::json json() const { return nlohmann::json::parse(out); }
};

/// A machine without a GPU, whatever this one has, and a cache of its own.
class CommandLine {
public:
  /// words: what stands behind "tilewright", quoted for the shell; environment: "NAME=value ..." in front.
  [[nodiscard]] CommandResult run(const std::string& words, const std::string& environment = "") const {
    const auto file = [&](const char* name) { return folder_.path() / name; };
    const std::string line = fmt::format(
        "cd '{}' && env TILEWRIGHT_LIBCUDA=/nowhere/libcuda.so.1 TILEWRIGHT_CACHE='{}' {} '{}' {} > '{}' 2> '{}'",
        folder_.path().string(), file("cache").string(), environment, TILEWRIGHT_COMMAND, words,
        file("stdout").string(), file("stderr").string());
    CommandResult result;
    const int status = std::system(line.c_str());
    REQUIRE(WIFEXITED(status));
    result.status = WEXITSTATUS(status);
    result.out = read(file("stdout"));
    result.error = read(file("stderr"));
    return result;
  }

  [[nodiscard]] std::filesystem::path folder() const { return folder_.path(); }

  static std::string read(const std::filesystem::path& path) {
    std::ifstream stream(path, std::ios::binary);
    return {std::istreambuf_iterator<char>(stream), {}};
  }

private:
  TemporaryFolder folder_;
};

/// An error in three parts, on stderr, with this status; nothing on stdout.
inline void check_error(const CommandResult& result, int status, const std::string& code, const std::string& fragment) {
  CAPTURE(result.error);
  CHECK(result.status == status);
  CHECK(result.out.empty());
  CHECK(result.error.find("tilewright: " + code + ": ") != std::string::npos);
  CHECK(result.error.find("\n  allowed: ") != std::string::npos);
  CHECK(result.error.find("\n  to do:   ") != std::string::npos);
  CHECK(result.error.find(fragment) != std::string::npos);
}
