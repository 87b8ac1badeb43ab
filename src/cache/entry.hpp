// One compiled kernel in the cache, and its file format.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "compiler/report.hpp"
#include "support/hash.hpp"

namespace tilewright::cache {

/// One compiled kernel. Immutable once the cache has handed it out.
struct CacheEntry {
  support::Hash128 key;          // of the request, see cache/key.hpp
  std::string spec;              // the spec's one line
  std::string kernel_name;       // the extern "C" function to look up in the cubin
  std::string compiler_identity; // which build of which compiler, see compiler::identity()
  std::string compiler_version;  // "13.0"
  std::string log;               // what the compiler said
  KernelReport report;
  double compile_milliseconds = 0;
  std::vector<std::byte> cubin;
  KernelOrigin origin = KernelOrigin::compiled; // disk or compiled: how this process came by it; not in the file
};

/// The file, all numbers little endian, texts with their length (64 bits) in front:
///     "TILEWRGT", format version (32 bits), key (high, low), spec, kernel name, compiler identity, compiler version,
///     log, registers, spill, stack and static shared bytes (32 bits each), compile time in microseconds (64 bits),
///     cubin, XXH3-128 of all before (high, low)
std::string encode(const CacheEntry& entry);

enum class Decoding {
  good,
  corrupt,      // not an entry, cut off, or altered
  other_version // an entry of another version of tilewright: to be left alone, and compiled again
};

struct Decoded {
  Decoding state = Decoding::corrupt;
  std::string problem; // why it is not good
  CacheEntry entry;    // where it is good
};

/// Never throws on bad bytes; nothing is taken from a file whose hash does not match.
Decoded decode(std::string_view file);

} // namespace tilewright::cache
