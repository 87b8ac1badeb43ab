#include <doctest/doctest.h>

#include <cstdint>
#include <cstdlib>
#include <limits>
#include <string>
#include <vector>

#include "support/environment.hpp"
#include "support/text.hpp"
#include <tilewright/error.hpp>

using namespace tilewright;
using support::parse_integer;

TEST_CASE("text is split at every separator, empty parts included") {
  using Parts = std::vector<std::string_view>;
  CHECK(support::split("6x8x8", 'x') == Parts{"6", "8", "8"});
  CHECK(support::split("a,,b,", ',') == Parts{"a", "", "b", ""});
  CHECK(support::split("", ',') == Parts{""});
}

TEST_CASE("blanks are trimmed at both ends only") {
  CHECK(support::trim(" \t a b \r\n") == "a b");
  CHECK(support::trim(" \n").empty());
}

TEST_CASE("integers are read whole and within their range") {
  CHECK(parse_integer("-12", "the value", -12, 5) == -12);
  CHECK(parse_integer("9223372036854775807", "the value", 0, std::numeric_limits<std::int64_t>::max()) ==
        std::numeric_limits<std::int64_t>::max());
  for (const char* bad : {"", " 1", "1 ", "1.5", "0x10", "+1", "6", "9223372036854775808", "--1", "one"})
    CHECK_THROWS_AS(parse_integer(bad, "the value", -5, 5), Error);
}

TEST_CASE("the error of a bad integer has its three parts") {
  try {
    parse_integer("7", "head_dim", 1, 5);
    FAIL("7 was accepted");
  } catch (const Error& error) {
    CHECK(error.code() == ErrorCode::invalid_argument);
    CHECK(error.problem() == "head_dim is '7'");
    CHECK(error.allowed() == "an integer from 1 to 5 is allowed");
    CHECK(std::string(error.what()) == error.problem() + "; " + error.allowed() + "; " + error.remedy());
  }
}

TEST_CASE("every error code has its own name") {
  CHECK(to_string(ErrorCode::invalid_argument) == "invalid_argument");
  CHECK(to_string(ErrorCode::cache_corrupt) == "cache_corrupt");
  CHECK(to_string(ErrorCode::internal) == "internal");
}

TEST_CASE("environment flags are 0, 1 or an error") {
  constexpr const char* name = "TILEWRIGHT_TEST_FLAG";
  ::unsetenv(name);
  CHECK_FALSE(support::environment(name));
  CHECK_FALSE(support::environment_flag(name));
  ::setenv(name, "", 1);
  CHECK_FALSE(support::environment(name));
  ::setenv(name, "0", 1);
  CHECK_FALSE(support::environment_flag(name));
  ::setenv(name, "1", 1);
  CHECK(support::environment_flag(name));
  ::setenv(name, "yes", 1);
  CHECK_THROWS_AS(support::environment_flag(name), Error);
  ::unsetenv(name);
}
