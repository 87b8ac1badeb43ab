// What whoever runs the tests may give in the environment.
#pragma once

#include <cstdint>
#include <cstdlib>
#include <string>

namespace tilewright::testing {

inline std::uint64_t number_in_environment(const char* name, std::uint64_t otherwise) {
  const char* text = std::getenv(name);
  return text == nullptr ? otherwise : std::stoull(text);
}

/// TILEWRIGHT_SOURCE_DIR, else the current folder.
inline std::string source_folder() {
  const char* const root = std::getenv("TILEWRIGHT_SOURCE_DIR");
  return root == nullptr ? "." : root;
}

} // namespace tilewright::testing
