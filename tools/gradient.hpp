// attend --backward: the gradients of one call, out of a file's dout.
#pragma once

#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "attention_input.hpp"
#include "device.hpp"

namespace tilewright::tools {

struct VideoSparseInput;

/// In host memory; all but dout are poisoned until they are computed.
struct GradientTensors {
  HostTensor dout, dq, dk, dv;
  std::optional<HostTensor> dgate;
};

/// dout out of a .safetensors file, of q's shape and type. Throws UsageError where the file has none, invalid_argument
/// where it does not fit.
GradientTensors read_gradient(const std::filesystem::path& path, const AttentionInput& input, bool gated);

struct GradientError {
  std::string name;
  double relative_l2;
  bool explained; // by the type's rounding
};

struct GradientReport {
  Preparation preparation;
  double milliseconds = 0;
  std::vector<GradientError> errors; // against the reference, where that was asked for
};

/// Runs the backward call of a call whose results stand in input.out and input.lse, and leaves the gradients in
/// `gradients`.
GradientReport run_gradient(Device& device, AttentionInput& input, GradientTensors& gradients, bool compare);

/// The same behind a placed forward call that has run, with its fine result kept.
GradientReport run_gradient(Device& device, const VideoSparseInput& input, const VideoSparseAttention& placed,
                            GradientTensors& gradients, bool compare);

/// Throws internal, naming the first gradient that is farther from the reference than the type's rounding explains.
void require_agreement(const GradientReport& report);

} // namespace tilewright::tools
