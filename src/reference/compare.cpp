#include "reference/compare.hpp"

#include <algorithm>
#include <cmath>
#include <limits>

#include <fmt/format.h>

#include <tilewright/error.hpp>

namespace tilewright::reference {
namespace {

constexpr double infinity = std::numeric_limits<double>::infinity();

void require_same_size(std::size_t actual, std::size_t expected) {
  if (actual != expected)
    throw Error(ErrorCode::invalid_argument, fmt::format("{} values are compared with {}", actual, expected),
                "two results of the same size are allowed", "compare results of the same problem");
}

} // namespace

OutputError output_error(std::span<const double> actual, std::span<const double> expected) {
  require_same_size(actual.size(), expected.size());
  double difference_squares = 0, expected_squares = 0, max_absolute = 0;
  for (std::size_t i = 0; i < actual.size(); ++i) {
    const double difference = std::abs(actual[i] - expected[i]);
    if (!std::isfinite(difference))
      return {infinity, infinity};
    max_absolute = std::max(max_absolute, difference);
    difference_squares += difference * difference;
    expected_squares += expected[i] * expected[i];
  }
  if (difference_squares == 0)
    return {0, 0};
  return {std::sqrt(difference_squares / expected_squares), max_absolute};
}

double lse_error(std::span<const double> actual, std::span<const double> expected) {
  require_same_size(actual.size(), expected.size());
  double largest = 0;
  for (std::size_t i = 0; i < actual.size(); ++i) {
    if (actual[i] == -infinity && expected[i] == -infinity)
      continue;
    const double difference = std::abs(actual[i] - expected[i]);
    if (!std::isfinite(difference))
      return infinity;
    largest = std::max(largest, difference);
  }
  return largest;
}

} // namespace tilewright::reference
