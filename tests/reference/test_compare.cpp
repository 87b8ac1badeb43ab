#include <doctest/doctest.h>

#include <cmath>
#include <limits>
#include <vector>

#include "reference/compare.hpp"
#include <tilewright/error.hpp>

using namespace tilewright;
using namespace tilewright::reference;

namespace {

constexpr double infinity = std::numeric_limits<double>::infinity();
const double not_a_number = std::numeric_limits<double>::quiet_NaN();
using Values = std::vector<double>;

} // namespace

TEST_CASE("output errors are relative to the expected norm") {
  const OutputError error = output_error(Values{3, 4.5, 0}, Values{3, 4, 0});
  CHECK(error.relative_l2 == doctest::Approx(0.1));
  CHECK(error.max_absolute == doctest::Approx(0.5));
  CHECK(output_error(Values{0, 0}, Values{0, 0}).relative_l2 == 0);
  CHECK(output_error(Values{0, 1e-9}, Values{0, 0}).relative_l2 == infinity);
}

TEST_CASE("what is not finite never passes") {
  for (const double bad : {not_a_number, infinity, -infinity}) {
    CHECK(output_error(Values{1, bad}, Values{1, 1}).relative_l2 == infinity);
    CHECK(output_error(Values{1, bad}, Values{1, 1}).max_absolute == infinity);
    CHECK(lse_error(Values{1, bad}, Values{1, 1}) == infinity);
  }
  CHECK(output_error(Values{infinity}, Values{infinity}).relative_l2 == infinity);
}

TEST_CASE("log-sum-exps of rows without keys are equal to each other only") {
  CHECK(lse_error(Values{-infinity, 2, 5}, Values{-infinity, 2.5, 5.25}) == 0.5);
  CHECK(lse_error(Values{-infinity}, Values{0}) == infinity);
  CHECK(lse_error(Values{0}, Values{-infinity}) == infinity);
  CHECK(lse_error(Values{-1e30}, Values{-infinity}) == infinity);
}

TEST_CASE("results of different sizes are refused") {
  CHECK_THROWS_AS(output_error(Values{1}, Values{1, 2}), Error);
  CHECK_THROWS_AS(lse_error(Values{1}, Values{}), Error);
}
