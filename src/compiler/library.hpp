// Where libnvrtc is looked for.
#pragma once

#include <filesystem>
#include <optional>
#include <string>
#include <vector>

namespace tilewright::compiler {

/// One place where libnvrtc may lie.
struct Candidate {
  std::string origin; // "$TILEWRIGHT_NVRTC", "loader path", "toolkit", "Python wheel", "already loaded"
  std::filesystem::path path;
  int major = 0;        // from the file's name; 0 where the name does not say
  std::string build_id; // empty: no library for this machine lies there
};

/// Every place, in the order in which they are tried; opens no library, runs none of its code:
///   1. $TILEWRIGHT_NVRTC, a file or a folder; where it is set, nothing else is tried
///   2. the loader's path: $LD_LIBRARY_PATH, then /etc/ld.so.cache; libnvrtc.so.13, then .so.12, then .so
///   3. the toolkit: $CUDA_HOME, $CUDA_PATH, $CONDA_PREFIX, /usr/local/cuda, /usr/local/cuda-* (newest first)
///   4. the Python wheels nvidia-cuda-nvrtc*: in $VIRTUAL_ENV, $TILEWRIGHT_VENV, $CONDA_PREFIX, the user's and the
///      system's site-packages and dist-packages
///   5. a libnvrtc that this process has already loaded
std::vector<Candidate> nvrtc_candidates();

/// The first candidate that is a library of version 12 or later for this machine. Those whose major version is above
/// newest_major come last: a driver may refuse cubins of a newer major version than its own. 0: no limit.
std::optional<Candidate> choose_nvrtc(const std::vector<Candidate>& candidates, int newest_major);

} // namespace tilewright::compiler
