#include "gradient.hpp"

#include <algorithm>
#include <cmath>

#include <fmt/format.h>

#include "progress.hpp"
#include "reference/compare.hpp"
#include "reference/tensor.hpp"
#include "safetensors.hpp"
#include "video_sparse_input.hpp"
#include <tilewright/reference.hpp>

namespace tilewright::tools {
namespace {

TensorView view_like(const TensorView& view, HostTensor& tensor) {
  TensorView result = view;
  result.data = tensor.bytes.data();
  return result;
}

/// Relative L2 of 1e-2 (bf16) and 3e-3 (fp16), and where the terms of a sum cancel, half a unit of the terms.
GradientError gradient_error(const char* name, const TensorView& view, Layout layout,
                             const std::vector<double>& expected, double terms) {
  const bool bf16 = view.dtype == DataType::bf16;
  const double tolerance = bf16 ? 1e-2 : 3e-3, half_unit = bf16 ? 1.0 / 256 : 1.0 / 2048;
  const std::vector<double> actual = reference::read_tensor(view, layout);
  double squared_error = 0, squared_norm = 0;
  for (std::size_t i = 0; i < expected.size(); ++i) {
    squared_error += (actual[i] - expected[i]) * (actual[i] - expected[i]);
    squared_norm += expected[i] * expected[i];
  }
  return {name, reference::output_error(actual, expected).relative_l2,
          std::sqrt(squared_error) <= tolerance * std::sqrt(squared_norm) + half_unit * terms};
}

} // namespace

GradientTensors read_gradient(const std::filesystem::path& path, const AttentionInput& input, bool gated) {
  Safetensors file = read_safetensors(path);
  const auto found = file.tensors.find("dout");
  if (found == file.tensors.end())
    throw UsageError("the input has no tensor 'dout'", "--backward needs the gradient of the output, of q's shape",
                     "add dout to the input, or leave --backward out");
  if (found->second.shape != input.q.shape || found->second.type != input.q.type)
    throw Error(ErrorCode::invalid_argument,
                fmt::format("dout is {} {}", to_string(found->second.type), shape_text(found->second.shape)),
                fmt::format("{} {}, as q is, is allowed", to_string(input.q.type), shape_text(input.q.shape)),
                "correct the input");
  GradientTensors gradients{std::move(found->second), make_poisoned(input.q.type, input.q.shape),
                            make_poisoned(input.k.type, input.k.shape), make_poisoned(input.v.type, input.v.shape),
                            std::nullopt};
  if (gated)
    gradients.dgate = make_poisoned(input.q.type, input.q.shape);
  return gradients;
}

GradientReport run_gradient(Device& device, AttentionInput& input, GradientTensors& gradients, bool compare) {
  AttentionBackward host{};
  host.q = input.call.q;
  host.k = input.call.k;
  host.v = input.call.v;
  host.layout = input.call.layout;
  host.scale = input.call.scale;
  host.dout = view_like(input.call.q, gradients.dout);
  host.dq = view_like(input.call.q, gradients.dq);
  host.dk = view_like(input.call.k, gradients.dk);
  host.dv = view_like(input.call.v, gradients.dv);
  const Pattern pattern = device.place(input.relation.pattern);
  const AttentionBackward call = device.place(host, device.place(input.call), pattern);
  GradientReport report;
  {
    const Progress progress("preparing the backward kernels");
    report.preparation = device.prepare(call, pattern);
  }
  {
    const Progress progress("differentiating on " + device.name());
    report.milliseconds = device.measure([&] { device.attention_backward(call, pattern); });
  }
  device.collect(call.dq, host.dq);
  device.collect(call.dk, host.dk);
  device.collect(call.dv, host.dv);
  if (!compare)
    return report;
  const Progress progress("comparing in float64");
  const reference::Gradients expected = reference::attention_backward(host, input.relation.pattern);
  report.errors = {gradient_error("dq", host.dq, host.layout, expected.dq, expected.dq_terms),
                   gradient_error("dk", host.dk, host.layout, expected.dk, expected.dk_terms),
                   gradient_error("dv", host.dv, host.layout, expected.dv, 0)};
  return report;
}

GradientReport run_gradient(Device& device, const VideoSparseInput& input, const VideoSparseAttention& placed,
                            GradientTensors& gradients, bool compare) {
  VideoSparseAttentionBackward host;
  host.forward = input.call;
  host.dout = view_like(input.call.q, gradients.dout);
  host.dq = view_like(input.call.q, gradients.dq);
  host.dk = view_like(input.call.k, gradients.dk);
  host.dv = view_like(input.call.v, gradients.dv);
  if (gradients.dgate)
    host.dgate = view_like(input.call.q, *gradients.dgate);
  const VideoSparseAttentionBackward call = device.place(host, placed);
  GradientReport report;
  {
    const Progress progress("preparing the backward kernels");
    report.preparation = device.prepare(call);
  }
  {
    const Progress progress("differentiating on " + device.name());
    report.milliseconds = device.measure([&] { device.video_sparse_attention_backward(call); });
  }
  device.collect(call.dq, host.dq);
  device.collect(call.dk, host.dk);
  device.collect(call.dv, host.dv);
  if (call.dgate)
    device.collect(*call.dgate, *host.dgate);
  if (!compare)
    return report;
  const Progress progress("comparing in float64");
  const Layout layout = input.call.layout;
  const reference::VideoSparseGradients expected = reference::video_sparse_attention_backward(host);
  report.errors = {gradient_error("dq", host.dq, layout, expected.dq, expected.dq_terms),
                   gradient_error("dk", host.dk, layout, expected.dk, expected.dk_terms),
                   gradient_error("dv", host.dv, layout, expected.dv, 0)};
  if (host.dgate)
    report.errors.push_back(gradient_error("dgate", *host.dgate, layout, expected.dgate, 0));
  return report;
}

void require_agreement(const GradientReport& report) {
  const auto wrong = std::find_if(report.errors.begin(), report.errors.end(),
                                  [](const GradientError& error) { return !error.explained; });
  if (wrong == report.errors.end())
    return;
  throw Error(ErrorCode::internal,
              fmt::format("{} differs from the reference by {:.3g} (relative L2)", wrong->name, wrong->relative_l2),
              "1e-2 for bf16 and 3e-3 for fp16 are allowed",
              "report this as a fault of tilewright, with the command line and the input");
}

} // namespace tilewright::tools
