// A compiler for the fake driver.
#pragma once

#include <atomic>
#include <cstring>
#include <optional>
#include <string>

#include "cache/cache.hpp"

constexpr int static_shared_bytes = 1024;

/// Compiles to a cubin that holds the kernel's name, and counts.
inline tilewright::cache::Toolchain counting_toolchain(std::atomic<int>& compiles) {
  using namespace tilewright;
  cache::Toolchain toolchain;
  toolchain.generate = [](const Spec& spec) {
    return codegen::GeneratedSource{.text = "source of " + to_string(spec), .kernel_name = "kernel"};
  };
  toolchain.compiler_identity = [] { return std::optional<std::string>("nvrtc 13.0 build-id test"); };
  toolchain.compile = [&compiles](const codegen::GeneratedSource& source, const Architecture&) {
    ++compiles;
    compiler::CompiledKernel kernel;
    kernel.cubin.resize(source.text.size() + 1);
    std::memcpy(kernel.cubin.data(), source.text.c_str(), kernel.cubin.size());
    kernel.report.registers = 128;
    kernel.report.static_shared_bytes = static_shared_bytes;
    return kernel;
  };
  return toolchain;
}
