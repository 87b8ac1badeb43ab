// Which NVRTC knows which GPU architecture.
#pragma once

#include <compare>
#include <string>
#include <vector>

#include <tilewright/types.hpp>

namespace tilewright::compiler {

/// A version of NVRTC, as its own nvrtcVersion tells it.
struct Version {
  int major = 0, minor = 0;
  friend auto operator<=>(const Version&, const Version&) = default;
};
std::string to_string(const Version& version);

/// The oldest NVRTC that tilewright is tested with.
inline constexpr Version oldest_nvrtc{12, 4};

/// From here on NVRTC keeps results itself where it finds a driver, and then gives no log: the report would be empty.
/// It is told not to (NVRTC documentation, "Caching").
inline constexpr Version first_nvrtc_with_cache{12, 9};

/// Throws unsupported unless this NVRTC compiles for the architecture; the message names the versions that do.
/// known: the numbers (80, 90, ...) that nvrtcGetSupportedArchs gave. Suffixes it does not tell: those are our table's.
void require_architecture(const Architecture& architecture, const Version& version, const std::vector<int>& known);

} // namespace tilewright::compiler
