// Warmup manifests: which problems on which architectures.
#pragma once

#include <filesystem>
#include <vector>

#include <tilewright/problem.hpp>
#include <tilewright/types.hpp>

namespace tilewright::tools {

struct Manifest {
  std::vector<Architecture> architectures;
  std::vector<Problem> problems;
};

/// Reads
///
///     {"name": "...", "source": "...",
///      "architectures": ["sm_80", "sm_90a"],
///      "problems": ["attention_forward:pattern=sliding_tile,tile=6x8x8,window=3x3x3,dtype=bf16,head_dim=128"]}
///
/// name and source are for people. Throws invalid_argument with the path and the member.
Manifest read_manifest(const std::filesystem::path& path);

} // namespace tilewright::tools
