#include "support/environment.hpp"

#include <cstdlib>

#include <fmt/format.h>

#include <tilewright/error.hpp>

namespace tilewright::support {

std::optional<std::string> environment(const char* name) {
  const char* const value = std::getenv(name);
  if (value == nullptr || *value == '\0')
    return std::nullopt;
  return value;
}

bool environment_flag(const char* name) {
  const auto value = environment(name);
  if (!value || *value == "0")
    return false;
  if (*value == "1")
    return true;
  throw Error(ErrorCode::invalid_argument, fmt::format("${} is '{}'", name, *value), "0 and 1 are allowed",
              fmt::format("set {}=1, or unset it", name));
}

} // namespace tilewright::support
