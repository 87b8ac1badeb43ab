// Pieces of text: splitting, trimming, numbers with a range.
#pragma once

#include <cstdint>
#include <string_view>
#include <vector>

namespace tilewright::support {

/// The parts between separators; "a,,b" gives three, "" gives one (empty). The parts view the text.
std::vector<std::string_view> split(std::string_view text, char separator);

/// Without blanks, tabs and line ends at both ends.
std::string_view trim(std::string_view text) noexcept;

/// A decimal integer, all of the text. Throws invalid_argument, naming `name`, the text and the range.
std::int64_t parse_integer(std::string_view text, std::string_view name, std::int64_t minimum, std::int64_t maximum);

} // namespace tilewright::support
