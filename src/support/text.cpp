#include "support/text.hpp"

#include <charconv>

#include <fmt/format.h>

#include <tilewright/error.hpp>

namespace tilewright::support {

std::vector<std::string_view> split(std::string_view text, char separator) {
  std::vector<std::string_view> parts;
  for (;;) {
    const std::size_t end = text.find(separator);
    parts.push_back(text.substr(0, end));
    if (end == std::string_view::npos)
      return parts;
    text.remove_prefix(end + 1);
  }
}

std::string_view trim(std::string_view text) noexcept {
  constexpr std::string_view blanks = " \t\r\n";
  const std::size_t first = text.find_first_not_of(blanks);
  if (first == std::string_view::npos)
    return {};
  return text.substr(first, text.find_last_not_of(blanks) - first + 1);
}

std::int64_t parse_integer(std::string_view text, std::string_view name, std::int64_t minimum, std::int64_t maximum) {
  std::int64_t value = 0;
  const char* const end = text.data() + text.size();
  const auto [stop, error] = std::from_chars(text.data(), end, value);
  if (error != std::errc{} || stop != end || value < minimum || value > maximum)
    throw Error(ErrorCode::invalid_argument, fmt::format("{} is '{}'", name, text),
                fmt::format("an integer from {} to {} is allowed", minimum, maximum), fmt::format("correct {}", name));
  return value;
}

} // namespace tilewright::support
