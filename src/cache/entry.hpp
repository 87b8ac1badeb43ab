// One compiled kernel in the cache, and its file format.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "compiler/report.hpp"
#include "support/hash.hpp"

namespace tilewright::cache {

/// One compiled kernel. Immutable once the cache has handed it out.
struct CacheEntry {
  support::Hash128 key;    // of the request, see cache/key.hpp
  std::string spec;        // the spec's one line
  std::string kernel_name; // the extern "C" function to look up in the cubin
  std::string compiler;    // identity of the compiler: version and build id
  std::string log;         // what the compiler said
  KernelReport report;
  double compile_milliseconds = 0;
  std::vector<std::byte> cubin;
  KernelOrigin origin = KernelOrigin::compiled; // disk or compiled: how this process came by it; not in the file
};

} // namespace tilewright::cache
