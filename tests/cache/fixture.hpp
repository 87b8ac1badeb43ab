// What the cache's tests share: a folder of their own, and a compiler that counts.
#pragma once

#include <doctest/doctest.h>

#include <atomic>
#include <chrono>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <functional>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include <sys/wait.h>
#include <unistd.h>

#include "cache/cache.hpp"
#include "cache/store.hpp"
#include <tilewright/error.hpp>

namespace tilewright::test {

namespace fs = std::filesystem;

struct TemporaryFolder {
  fs::path path;
  TemporaryFolder() {
    std::string name = (fs::temp_directory_path() / "tilewright-cache-XXXXXX").string();
    path = ::mkdtemp(name.data());
  }
  ~TemporaryFolder() {
    std::error_code error;
    fs::remove_all(path, error);
  }
  TemporaryFolder(const TemporaryFolder&) = delete;
  TemporaryFolder& operator=(const TemporaryFolder&) = delete;
};

/// Sets an environment variable, and removes it again.
struct Variable {
  const char* name;
  Variable(const char* name_, const std::string& value) : name(name_) { ::setenv(name, value.c_str(), 1); }
  ~Variable() { ::unsetenv(name); }
  Variable(const Variable&) = delete;
  Variable& operator=(const Variable&) = delete;
};

inline Spec spec_number(int number) {
  Spec spec;
  spec.problem.head_dim = number;
  spec.architecture = {9, 0, 'a'};
  return spec;
}

inline const std::string compiler_a = "build-id aaaa";
inline const std::string compiler_b = "build-id bbbb";

/// A cubin that depends on the source and the compiler, so that a wrong one shows.
inline std::vector<std::byte> expected_cubin(const Spec& spec, const std::string& compiler = compiler_a,
                                             std::size_t bytes = 5000) {
  const std::string seed = compiler + " compiled " + to_string(spec);
  std::vector<std::byte> cubin(bytes);
  for (std::size_t index = 0; index < bytes; ++index)
    cubin[index] = static_cast<std::byte>(seed[index % seed.size()]);
  return cubin;
}

struct CountingCompiler {
  std::atomic<int> compiles{0};
  std::optional<std::string> identity = compiler_a;
  std::chrono::milliseconds duration{0};
  bool fails = false;
  std::size_t cubin_bytes = 5000;

  cache::Toolchain toolchain() {
    cache::Toolchain made;
    made.generate = [](const Spec& spec) {
      return codegen::GeneratedSource{.text = "source of " + to_string(spec), .kernel_name = "probe"};
    };
    made.compiler_identity = [this] { return identity; };
    made.compile = [this](const codegen::GeneratedSource& source, const Architecture&) {
      ++compiles;
      std::this_thread::sleep_for(duration);
      if (fails)
        throw Error(ErrorCode::compile_failed, "this compiler fails", "nothing", "nothing");
      if (!identity)
        throw Error(ErrorCode::unsupported, "no libnvrtc was found", "nothing", "nothing");
      compiler::CompiledKernel kernel;
      const std::string seed = *identity + " compiled " + source.text.substr(std::strlen("source of "));
      kernel.cubin.resize(cubin_bytes);
      for (std::size_t index = 0; index < cubin_bytes; ++index)
        kernel.cubin[index] = static_cast<std::byte>(seed[index % seed.size()]);
      kernel.report = {.registers = 168, .spill_bytes = 0, .stack_bytes = 16, .static_shared_bytes = 1024};
      kernel.log = "ptxas said this";
      kernel.milliseconds = 12.5;
      kernel.compiler_identity = *identity;
      kernel.compiler_version = "13.0";
      return kernel;
    };
    return made;
  }
};

/// Collects warnings.
struct Messages {
  std::mutex lock;
  std::vector<std::string> all;
  support::MessageCallback callback() {
    return [this](std::string_view message) {
      const std::lock_guard guard(lock);
      all.emplace_back(message);
    };
  }
  [[nodiscard]] int about(std::string_view part) {
    const std::lock_guard guard(lock);
    int count = 0;
    for (const std::string& message : all)
      count += message.find(part) != std::string::npos ? 1 : 0;
    return count;
  }
};

/// The one entry file in a cache folder.
inline fs::path only_entry(const fs::path& folder) {
  const auto files = cache::Store(folder, cache::Store::Access::read_only).list();
  REQUIRE(files.size() == 1);
  return files.front().path;
}

inline std::string bytes_of(const fs::path& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}

inline void overwrite(const fs::path& path, const std::string& bytes) {
  std::ofstream(path, std::ios::binary | std::ios::trunc) << bytes;
}

/// Runs the body in a child that fails when it hangs; gives its process id.
inline ::pid_t start_child(const std::function<int()>& body) {
  const ::pid_t child = ::fork();
  if (child != 0)
    return child;
  ::alarm(60);
  int status = 99;
  try {
    status = body();
  } catch (...) {
  }
  ::_exit(status);
}

inline int wait_for(::pid_t child) {
  int status = -1;
  REQUIRE(::waitpid(child, &status, 0) == child);
  return status;
}

inline ErrorCode code_of(const std::function<void()>& action, std::string* message = nullptr) {
  try {
    action();
  } catch (const Error& error) {
    if (message != nullptr)
      *message = error.what();
    return error.code();
  }
  FAIL("nothing was thrown");
  return ErrorCode::internal;
}

} // namespace tilewright::test
