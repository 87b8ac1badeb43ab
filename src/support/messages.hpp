// Warnings: what the library says instead of printing.
#pragma once

#include <functional>
#include <string_view>

#include <fmt/format.h>

namespace tilewright::support {

/// Takes one warning, "what happened; what that means; what to do". May be called from any thread; may be empty.
using MessageCallback = std::function<void(std::string_view)>;

/// Sends a warning of three parts, like those of tilewright::Error.
inline void warn(const MessageCallback& callback, std::string_view happened, std::string_view meaning,
                 std::string_view remedy) {
  if (callback)
    callback(fmt::format("{}; {}; {}", happened, meaning, remedy));
}

} // namespace tilewright::support
