// How far a result is from the reference.
#pragma once

#include <span>

namespace tilewright::reference {

/// Both measures are infinite where a value is not finite, so that a NaN never passes a tolerance.
struct OutputError {
  double relative_l2 = 0; // ||actual - expected|| / ||expected||; 0 where both are 0
  double max_absolute = 0;
};
OutputError output_error(std::span<const double> actual, std::span<const double> expected);

/// The largest difference of two log-sum-exps. -inf (a row without keys) equals -inf and nothing else.
double lse_error(std::span<const double> actual, std::span<const double> expected);

} // namespace tilewright::reference
