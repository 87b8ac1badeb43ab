// Runs the tilewright command as a user does.
#pragma once

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <string>

#include <doctest/doctest.h>
#include <fmt/format.h>
#include <nlohmann/json.hpp>
#include <sys/wait.h>

#include "support_temporary_folder.hpp"

inline const std::string sliding =
    "attention_forward:pattern=sliding_tile,tile=4x4x4,window=1x3x3,dtype=bf16,head_dim=64,layout=raster";
inline const std::string dense = "attention_forward:pattern=dense,dtype=bf16,head_dim=64,layout=raster";

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

inline void write(const std::filesystem::path& path, const std::string& bytes) {
  std::ofstream(path, std::ios::binary) << bytes;
}

/// NAME.pem and NAME.pub, of Ed25519.
inline void make_keys(const CommandLine& command, const std::string& name) {
  const std::string line =
      fmt::format("cd '{0}' && openssl genpkey -algorithm ed25519 -out {1}.pem 2>/dev/null && openssl pkey -in {1}.pem "
                  "-pubout -out {1}.pub",
                  command.folder().string(), name);
  REQUIRE(std::system(line.c_str()) == 0);
}
