// Environment variables. An empty one counts as not set.
#pragma once

#include <optional>
#include <string>

namespace tilewright::support {

std::optional<std::string> environment(const char* name);

/// True for 1, false for 0 or where it is not set. Throws invalid_argument for anything else.
bool environment_flag(const char* name);

} // namespace tilewright::support
