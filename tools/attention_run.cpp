#include "attention_run.hpp"

#include <fmt/format.h>

#include "block_map.hpp"
#include "progress.hpp"
#include "reference/tensor.hpp"
#include <tilewright/reference.hpp>

namespace tilewright::tools {
namespace {

reference::OutputError output_error(const AttentionInput& input, const reference::Result& expected) {
  return reference::output_error(reference::read_tensor(input.call.out, input.call.layout), expected.out);
}

} // namespace

AttentionReport run_attention(Device& device, AttentionInput& input, const Comparison& comparison) {
  AttentionReport report;
  report.device = device.name();
  report.kept_blocks = BlockMap(input.relation).kept_share();
  const AttentionForward call = device.place(input.call);
  const Pattern pattern = device.place(input.relation.pattern);
  {
    const Progress progress("preparing the kernel");
    report.preparation = device.prepare(call, pattern);
  }
  {
    const Progress progress("attending on " + device.name());
    report.milliseconds = device.measure([&] { device.attention_forward(call, pattern); });
  }
  device.collect(call.out, input.call.out);
  device.collect(*call.lse, *input.call.lse);

  const Progress progress("comparing in float64");
  if (comparison.own_reference) {
    const reference::Result expected = reference::attention_forward(input.call, input.relation.pattern);
    report.error = output_error(input, expected);
    report.lse_error = reference::lse_error(reference::read_lse(*input.call.lse), expected.lse);
  }
  if (comparison.dense_reference) {
    const PatternInput everything = keep_everything(input.relation);
    report.dense_error = output_error(input, reference::attention_forward(input.call, everything.pattern));
  }
  return report;
}

void require_agreement(const AttentionReport& report, DataType type) {
  // A float32 result rounded once, with probabilities rounded to the type before the second product.
  const double output_tolerance = type == DataType::bf16 ? 6e-3 : 1e-3;
  constexpr double lse_tolerance = 1e-4;
  if (report.error->relative_l2 <= output_tolerance && *report.lse_error <= lse_tolerance)
    return;
  throw Error(ErrorCode::internal,
              fmt::format("the result differs from the reference by {:.3g} (relative L2), its LSE by {:.3g}",
                          report.error->relative_l2, *report.lse_error),
              fmt::format("{:.3g} and {:.3g} are allowed", output_tolerance, lse_tolerance),
              "report this as a fault of tilewright, with the command line and the input");
}

} // namespace tilewright::tools
