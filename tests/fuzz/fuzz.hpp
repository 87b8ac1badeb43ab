// What the fuzz targets have in common. A target takes any bytes; it aborts where something other than
// tilewright::Error is thrown (libFuzzer sees to that) or where a promise does not hold.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <span>
#include <string_view>

#include <tilewright/error.hpp>

namespace tilewright::fuzz {

inline void require(bool holds, const char* promise) {
  if (holds)
    return;
  std::fprintf(stderr, "broken promise: %s\n", promise);
  std::abort();
}

inline std::string_view text_of(const std::uint8_t* data, std::size_t size) {
  return {reinterpret_cast<const char*>(data), size};
}

/// An error's three parts are all there.
inline void check_error(const Error& error) {
  require(!error.problem().empty() && !error.allowed().empty() && !error.remedy().empty(),
          "an error says what is wrong, what is allowed and what to do");
}

} // namespace tilewright::fuzz
