// The one-line texts of problems and schedules: refused with an error, or read to a value whose own text reads back to
// it.
#include "fuzz.hpp"
#include <tilewright/problem.hpp>
#include <tilewright/schedule.hpp>

using namespace tilewright;

namespace {

void check_problem(std::string_view text) try {
  const Problem problem = parse_problem(text);
  fuzz::require(parse_problem(to_string(problem)) == problem, "parse_problem(to_string(p)) == p");
  const auto variants = closed_variants(problem);
  fuzz::require(!variants.empty(), "a problem can be closed");
  for (const Problem& variant : variants) {
    validate(variant);
    fuzz::require(parse_problem(to_string(variant)) == variant, "a closed problem's line reads back");
  }
} catch (const Error& error) {
  fuzz::check_error(error);
}

void check_schedule(std::string_view text) try {
  const Schedule schedule = parse_schedule(text);
  fuzz::require(parse_schedule(to_string(schedule)) == schedule, "parse_schedule(to_string(s)) == s");
} catch (const Error& error) {
  fuzz::check_error(error);
}

} // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const std::string_view text = fuzz::text_of(data, size);
  check_problem(text);
  check_schedule(text);
  return 0;
}
