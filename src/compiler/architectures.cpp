#include "compiler/architectures.hpp"

#include <algorithm>
#include <array>
#include <optional>

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <tilewright/error.hpp>

namespace tilewright::compiler {

std::string to_string(const Version& version) { return fmt::format("{}.{}", version.major, version.minor); }

namespace {

struct Support {
  int number;
  Version first;
  std::optional<Version> last{}; // of those seen; none: still there
};

// From the release notes of CUDA 12.4 to 13.0, and nvrtcGetSupportedArchs of NVRTC 12.4, 12.8, 12.9 and 13.0.
// sm_101 was renamed to sm_110 in 13.0.
constexpr Version v12_9{12, 9};
constexpr std::array supported = {
    Support{50, oldest_nvrtc, v12_9},
    Support{52, oldest_nvrtc, v12_9},
    Support{53, oldest_nvrtc, v12_9},
    Support{60, oldest_nvrtc, v12_9},
    Support{61, oldest_nvrtc, v12_9},
    Support{62, oldest_nvrtc, v12_9},
    Support{70, oldest_nvrtc, v12_9},
    Support{72, oldest_nvrtc, v12_9},
    Support{75, oldest_nvrtc},
    Support{80, oldest_nvrtc},
    Support{86, oldest_nvrtc},
    Support{87, oldest_nvrtc},
    Support{88, {13, 0}},
    Support{89, oldest_nvrtc},
    Support{90, oldest_nvrtc},
    Support{100, {12, 8}},
    Support{101, {12, 8}, v12_9},
    Support{103, v12_9},
    Support{110, {13, 0}},
    Support{120, {12, 8}},
    Support{121, v12_9},
};

// Suffix a (this architecture only) came with sm_90, suffix f (this family) with sm_100 in 12.9.
constexpr int first_with_suffix_a = 90;
constexpr int first_with_suffix_f = 100;
constexpr Version first_with_families = v12_9;

/// The versions that compile for the architecture; nothing where none does.
std::optional<Support> versions_for(const Architecture& architecture) {
  const auto found = std::find_if(supported.begin(), supported.end(),
                                  [&](const Support& row) { return row.number == architecture.number(); });
  if (found == supported.end() || (architecture.suffix == 'a' && found->number < first_with_suffix_a) ||
      (architecture.suffix == 'f' && found->number < first_with_suffix_f))
    return std::nullopt;
  Support row = *found;
  if (architecture.suffix == 'f')
    row.first = std::max(row.first, first_with_families);
  return row;
}

} // namespace

void require_architecture(const Architecture& architecture, const Version& version, const std::vector<int>& known) {
  const std::optional<Support> versions = versions_for(architecture);
  const bool number_known = std::find(known.begin(), known.end(), architecture.number()) != known.end();
  // A number that the table does not have is newer than the table: NVRTC's word is enough.
  const bool newer_than_table = std::none_of(supported.begin(), supported.end(),
                                             [&](const Support& row) { return row.number == architecture.number(); });
  if (number_known && (newer_than_table || (versions && version >= versions->first)))
    return;

  const std::string problem =
      fmt::format("NVRTC {} does not know the architecture {}", to_string(version), to_string(architecture));
  const std::string allowed = fmt::format("it knows sm_{}", fmt::join(known, ", sm_"));
  if (!versions)
    throw Error(ErrorCode::unsupported, problem, allowed,
                "no version up to 13.0 does: correct the architecture, or install a newer NVRTC");
  const std::string range = versions->last
                                ? fmt::format("{} to {}", to_string(versions->first), to_string(*versions->last))
                                : fmt::format("{} or later", to_string(versions->first));
  throw Error(ErrorCode::unsupported, problem, allowed,
              fmt::format("install NVRTC {}, or name it in $TILEWRIGHT_NVRTC", range));
}

} // namespace tilewright::compiler
