// NVRTC, opened at run time: CUDA source -> cubin. Needs no CUDA file to build, and none but libnvrtc to run.
#pragma once

#include <cstddef>
#include <optional>
#include <string>
#include <vector>

#include "codegen/source.hpp"
#include "compiler/library.hpp"
#include "compiler/report.hpp"
#include <tilewright/types.hpp>

namespace tilewright::compiler {

struct CompiledKernel {
  std::vector<std::byte> cubin;
  KernelReport report;
  std::string log; // all that NVRTC and ptxas said
  double milliseconds = 0;
  std::string compiler_identity; // of the library that did it, see identity()
  std::string compiler_version;  // "13.0"
};

/// The options that every kernel is compiled with, in order. Part of the cache's key.
std::vector<std::string> compile_options(const Architecture& architecture);

/// The name that NVRTC is given for every source; #line directives name the real files. Part of the cache's key.
inline constexpr const char* program_name = "tilewright.cu";

/// The compiler that compile() uses: "build-id 65be0db3...", the same on every host that has this build of libnvrtc;
/// nothing where none is found. Searches on the first call (compiler/library.hpp), reads the file's header and loads
/// nothing: where every kernel is cached, NVRTC is never opened. Thread-safe.
std::optional<std::string> identity();

/// Tells which major version of CUDA the driver knows: an NVRTC above it is used only where there is no other.
/// Call before the first identity() or compile().
void set_driver_major(int major);

/// Compiles. Throws unsupported where no NVRTC was found (saying what was looked for), or it is older than 12.4, or
/// does not know the architecture (saying which version does); compile_failed, with the log, where the source does not
/// compile, spills registers, or ptxas warned that the kernel would run several times slower.
///
/// Thread-safe, one at a time: NVRTC serialises anyway. A fork waits until a running compile has finished, so that the
/// child can compile too.
CompiledKernel compile(const codegen::GeneratedSource& source, const Architecture& architecture);

/// What the doctor command shows.
struct Description {
  std::string problem; // why there is no usable compiler; empty: all is well
  std::string path, version, build_id;
  std::vector<int> architectures;    // numbers: 80, 86, ...
  std::vector<Candidate> candidates; // every place, in the order in which they were tried
};

/// Searches, and opens what was chosen.
Description describe();

} // namespace tilewright::compiler
