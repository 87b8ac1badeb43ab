// NVRTC, opened at run time: CUDA source -> cubin. Needs no CUDA file to build, and none but libnvrtc to run.
#pragma once

#include <cstddef>
#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "codegen/source.hpp"
#include "compiler/report.hpp"
#include <tilewright/types.hpp>

namespace tilewright::compiler {

struct CompiledKernel {
  std::vector<std::byte> cubin;
  KernelReport report;
  std::string log; // all that NVRTC and ptxas said
  double milliseconds = 0;
};

/// The options that every kernel is compiled with, in order. Part of the cache's key.
std::vector<std::string> compile_options(const Architecture& architecture);

/// The name that NVRTC is given for every source; #line directives name the real files. Part of the cache's key.
inline constexpr const char* program_name = "tilewright.cu";

/// The process's compiler: found and opened on the first call, then kept. Thread-safe.
/// identity: "nvrtc 13.0 build-id 0123..."; nothing where no NVRTC was found.
std::optional<std::string> identity();

/// Compiles. Throws unsupported where no NVRTC was found (saying what was looked for) or where it does not know the
/// architecture (saying which version does); compile_failed, with the log, where the source does not compile, spills
/// registers, or ptxas warned that the kernel would run several times slower. Thread-safe; NVRTC serialises.
CompiledKernel compile(const codegen::GeneratedSource& source, const Architecture& architecture);

} // namespace tilewright::compiler
