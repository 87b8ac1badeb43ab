#include <tilewright/error.hpp>

#include <fmt/format.h>

#include <utility>

namespace tilewright {

std::string_view to_string(ErrorCode code) noexcept {
  switch (code) {
  case ErrorCode::invalid_argument:
    return "invalid_argument";
  case ErrorCode::unsupported:
    return "unsupported";
  case ErrorCode::compile_failed:
    return "compile_failed";
  case ErrorCode::cache_corrupt:
    return "cache_corrupt";
  case ErrorCode::driver_error:
    return "driver_error";
  case ErrorCode::no_device:
    return "no_device";
  case ErrorCode::jit_forbidden:
    return "jit_forbidden";
  case ErrorCode::capture_in_progress:
    return "capture_in_progress";
  case ErrorCode::internal:
    return "internal";
  }
  return "unknown";
}

Error::Error(ErrorCode code, std::string problem, std::string allowed, std::string remedy)
    : std::runtime_error(fmt::format("{}; {}; {}", problem, allowed, remedy)), code_(code),
      problem_(std::move(problem)), allowed_(std::move(allowed)), remedy_(std::move(remedy)) {}

} // namespace tilewright
