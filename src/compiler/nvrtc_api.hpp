// The entry points of libnvrtc that tilewright uses, as nvrtc.h of CUDA 12.4 to 13.0 declares them.
#pragma once

#include <cstddef>
#include <filesystem>
#include <string>
#include <vector>

#include "compiler/architectures.hpp"

namespace tilewright::compiler {

using NvrtcProgram = void*;
using NvrtcResult = int;
inline constexpr NvrtcResult nvrtc_success = 0;
inline constexpr NvrtcResult nvrtc_error_compilation = 6;

/// An opened libnvrtc. It stays open to the end of the process: NVRTC keeps threads and global state.
struct NvrtcApi {
  std::filesystem::path path;
  std::string build_id; // of what is mapped, whatever the file has become since
  Version version;
  std::vector<int> architectures; // numbers: 80, 86, ...

  const char* (*get_error_string)(NvrtcResult) = nullptr;
  NvrtcResult (*create_program)(NvrtcProgram*, const char* source, const char* name, int header_count,
                                const char* const* headers, const char* const* include_names) = nullptr;
  NvrtcResult (*destroy_program)(NvrtcProgram*) = nullptr;
  NvrtcResult (*compile_program)(NvrtcProgram, int option_count, const char* const* options) = nullptr;
  NvrtcResult (*get_log_size)(NvrtcProgram, std::size_t*) = nullptr;
  NvrtcResult (*get_log)(NvrtcProgram, char*) = nullptr;
  NvrtcResult (*get_cubin_size)(NvrtcProgram, std::size_t*) = nullptr;
  NvrtcResult (*get_cubin)(NvrtcProgram, char*) = nullptr;
};

/// Opens the library. Throws unsupported where the loader refuses it, a function is missing, or it is older than 12.4.
NvrtcApi open_nvrtc(const std::filesystem::path& path);

} // namespace tilewright::compiler
