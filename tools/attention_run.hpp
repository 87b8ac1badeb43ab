// One attention call, run and judged: what attend and demo share.
#pragma once

#include <optional>
#include <string>

#include "attention_input.hpp"
#include "device.hpp"
#include "gradient.hpp"
#include "reference/compare.hpp"

namespace tilewright::tools {

/// What to compare the result with.
struct Comparison {
  bool own_reference = false;   // the same pattern in float64
  bool dense_reference = false; // every query with every key, in float64: what the pattern leaves out
};

struct AttentionReport {
  Preparation preparation;
  std::string device;
  double milliseconds = 0;
  double kept_blocks = 1; // share of the query-key tile pairs
  std::optional<reference::OutputError> error;
  std::optional<double> lse_error;
  std::optional<reference::OutputError> dense_error;
  std::optional<GradientReport> gradient; // attend --backward
};

/// Runs the input's call once, with its kernel prepared, and leaves the result in input.out and input.lse.
AttentionReport run_attention(Device& device, AttentionInput& input, const Comparison& comparison);

/// Throws internal where the result is farther from its own reference than the type's rounding explains.
void require_agreement(const AttentionReport& report, DataType type);

} // namespace tilewright::tools
