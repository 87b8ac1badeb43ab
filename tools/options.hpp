// Options that several commands share, and how their texts are read.
#pragma once

#include <filesystem>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include <tilewright/cache.hpp>
#include <tilewright/error.hpp>
#include <tilewright/pattern.hpp>
#include <tilewright/problem.hpp>
#include <tilewright/schedule.hpp>

namespace CLI {
class App;
}

namespace tilewright::tools {

/// An Error in what was typed, not in the work: exit status 2.
class UsageError : public Error {
public:
  explicit UsageError(const Error& error) : Error(error) {}
  UsageError(std::string problem, std::string allowed, std::string remedy)
      : Error(ErrorCode::invalid_argument, std::move(problem), std::move(allowed), std::move(remedy)) {}
};

/// What the library warns of, on stderr.
void print_warning(std::string_view message);

/// The parsers of the library, for texts of the command line. Throw UsageError.
Problem problem_option(const std::string& line);
/// One that attend, bench and mask know what to do with.
Problem attention_option(const std::string& line);
Extent3 extent_option(const std::string& option, const std::string& text);
std::vector<Window> windows_option(const std::string& text);             // "3x3x3,1x3x3"
std::vector<Architecture> architectures_option(const std::string& text); // "sm_80,sm_90a"
std::optional<Schedule> schedule_option(const std::string& text);        // "": none

/// What "--cache FOLDER" and "--jit" say.
struct CacheChoice {
  std::filesystem::path folder;
  std::string jit = "allow";

  void add_to(CLI::App& command);
  [[nodiscard]] CacheOptions options() const;
};

/// What the pattern needs to know beyond the problem's line and the tensors.
struct PatternChoice {
  std::string canvas, key_canvas, windows;
  std::optional<std::int64_t> text_length;
  std::filesystem::path lists;
  std::optional<std::int64_t> topk;
  std::optional<double> sparsity;
  std::string sparsity_of = "tiles"; // or "tokens": which convention turns it into a topk

  void add_to(CLI::App& command);
};

} // namespace tilewright::tools
