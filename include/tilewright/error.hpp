// Errors: one exception type, a code, and a message of three parts.
#pragma once

#include <stdexcept>
#include <string>
#include <string_view>

namespace tilewright {

enum class ErrorCode {
  invalid_argument,    // the caller's value is outside what the documentation allows
  unsupported,         // correct, but no kernel, schedule or tool here can do it; the message lists why
  compile_failed,      // NVRTC or the host compiler refused the generated source: our fault
  cache_corrupt,       // a cache entry or bundle failed its check
  driver_error,        // the CUDA driver reported an error
  no_device,           // no usable GPU, or no driver
  jit_forbidden,       // jit = forbid and the kernel is not in the cache
  capture_in_progress, // the stream is being captured and the kernel is not prepared
  internal             // a broken invariant of this library: our fault
};

/// The code's name as it stands in the enumeration, for example "invalid_argument".
std::string_view to_string(ErrorCode code) noexcept;

/// What every function of tilewright throws. Example:
///
///     try { runtime.attention_forward(call, pattern, stream); }
///     catch (const tilewright::Error& error) { log(error.code(), error.what()); }
class Error : public std::runtime_error {
public:
  /// problem: what is wrong, with the value seen; allowed: what would be right; remedy: what to do.
  /// what() is "problem; allowed; remedy".
  Error(ErrorCode code, std::string problem, std::string allowed, std::string remedy);

  [[nodiscard]] ErrorCode code() const noexcept { return code_; }
  [[nodiscard]] const std::string& problem() const noexcept { return problem_; }
  [[nodiscard]] const std::string& allowed() const noexcept { return allowed_; }
  [[nodiscard]] const std::string& remedy() const noexcept { return remedy_; }

private:
  ErrorCode code_;
  std::string problem_, allowed_, remedy_;
};

} // namespace tilewright
