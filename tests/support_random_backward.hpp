// Random problems of the backward pass: a RandomProblem with the forward result that belongs to it (in float64, rounded
// once), a random gradient, and places for dq, dk and dv.
//
//     CHECK(RandomBackward(seed, {}).check([&](const AttentionBackward& call, const Pattern& pattern) {
//             runtime.attention_backward(call, pattern);
//           }) == "");
#pragma once

#include <cstdint>
#include <cstring>
#include <list>
#include <random>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "support_random_problem.hpp"

namespace tilewright::testing {

/// Relative L2 of each gradient. Probabilities and the scores' gradients are rounded to 8 (bf16) or 11 (fp16)
/// significant bits, and delta comes from an output that was: each a relative error of about half a unit.
struct BackwardTolerances {
  double relative_l2;

  static constexpr BackwardTolerances of(DataType dtype) noexcept { return {dtype == DataType::bf16 ? 1e-2 : 3e-3}; }
};

class RandomBackward {
public:
  /// activation_scale multiplies what q, k, v and dout are drawn with.
  explicit RandomBackward(std::uint64_t seed, const RandomLimits& limits = {}, double activation_scale = 1)
      : problem_(seed, limits), scale_(activation_scale) {
    scale_inputs();
    const AttentionForward& forward = problem_.call();
    call_ = {.q = forward.q,
             .k = forward.k,
             .v = forward.v,
             .out = forward.out,
             .dout = add(forward.q, forward.q.dtype),
             .lse = forward.lse ? *forward.lse : add_lse(),
             .dq = add(forward.q, forward.q.dtype),
             .dk = add(forward.k, forward.k.dtype),
             .dv = add(forward.v, forward.v.dtype),
             .layout = forward.layout,
             .scale = forward.scale};
    AttentionForward with_lse = forward;
    with_lse.lse = call_.lse;
    reference::attention_forward_into(with_lse, problem_.pattern());
    fill_gradient(seed);
    workspace_.resize(Runtime::workspace_bytes(call_, problem_.pattern()) + workspace_alignment, std::byte{0x7f});
    const auto address = reinterpret_cast<std::uintptr_t>(workspace_.data());
    workspace_offset_ = (workspace_alignment - address % workspace_alignment) % workspace_alignment;
    call_.workspace = workspace_.data() + workspace_offset_;
    call_.workspace_bytes = workspace_.size() - workspace_alignment;
  }

  [[nodiscard]] const AttentionBackward& call() const noexcept { return call_; }
  [[nodiscard]] const Pattern& pattern() const noexcept { return problem_.pattern(); }
  [[nodiscard]] RandomProblem& problem() noexcept { return problem_; }

  /// Every tensor, and the call and the pattern with each pointer but the workspace's replaced by move(pointer): for
  /// tests that copy the tensors' allocations to a device and back.
  [[nodiscard]] std::vector<HostTensor*> tensors() noexcept {
    std::vector<HostTensor*> all;
    for (std::list<HostTensor>* some : {&problem_.tensors(), &tensors_, &lse_})
      for (HostTensor& tensor : *some)
        all.push_back(&tensor);
    return all;
  }
  template <typename Move> [[nodiscard]] std::pair<AttentionBackward, Pattern> relocated(Move move) const {
    AttentionBackward call = call_;
    for (TensorView* view : {&call.q, &call.k, &call.v, &call.out, &call.dout, &call.lse, &call.dq, &call.dk, &call.dv})
      view->data = move(view->data);
    return {call, problem_.relocated(move).second};
  }

  /// Poisons the gradients and the workspace, calls run(call, pattern), and compares. Empty where all is right.
  template <typename Run> std::string check(Run&& run) {
    poison();
    run(std::as_const(call_), problem_.pattern());
    return complaints();
  }

  void poison() {
    for (HostTensor* gradient : {dq_, dk_, dv_})
      gradient->poison_all();
    std::fill(workspace_.begin(), workspace_.end(), std::byte{0x7f});
  }

  /// What is wrong with the gradients as they stand.
  std::string complaints() {
    if (!expected_)
      expected_ = reference::attention_backward(call_, problem_.pattern());
    std::string complaints;
    compare("dq", *dq_, call_.dq, expected_->dq, complaints);
    compare("dk", *dk_, call_.dk, expected_->dk, complaints);
    compare("dv", *dv_, call_.dv, expected_->dv, complaints);
    return complaints.empty() ? "" : fmt::format("{} scale={}{}", problem_.description(), scale_, complaints);
  }

  /// The bytes of all gradients: for comparing runs bit by bit.
  [[nodiscard]] std::vector<std::byte> gradient_bytes() const {
    std::vector<std::byte> bytes;
    for (const HostTensor* gradient : {dq_, dk_, dv_})
      bytes.insert(bytes.end(), gradient->allocation(), gradient->allocation() + gradient->allocation_bytes());
    return bytes;
  }

private:
  static constexpr std::size_t workspace_alignment = 128;
  using Extents = std::initializer_list<std::int64_t>;

  TensorView add(const TensorView& like, DataType dtype) {
    const auto& e = like.extents;
    std::int64_t gap = 8 * static_cast<std::int64_t>(tensors_.size() % 3); // of elements, between tokens or heads
    const std::int64_t inner = e[3], middle = e[2] * inner + gap, outer = e[1] * middle;
    HostTensor& tensor = tensors_.emplace_back(dtype, Extents{e[0], e[1], e[2], e[3]},
                                               std::vector{outer, middle, inner, std::int64_t{1}});
    HostTensor** places[] = {&dout_, &dq_, &dk_, &dv_};
    *places[added_++] = &tensor;
    return tensor.view();
  }

  TensorView add_lse() {
    const AttentionForward& forward = problem_.call();
    const bool raster = forward.layout == Layout::raster;
    const auto& e = forward.q.extents;
    return lse_.emplace_back(DataType::float32, Extents{e[0], e[raster ? 2 : 1], e[raster ? 1 : 2]}).view();
  }

  /// Multiplies q, k and v, which the problem has drawn; poison stays as it is.
  void scale_inputs() {
    if (scale_ == 1)
      return;
    const AttentionForward& forward = problem_.call();
    for (const TensorView* view : {&forward.q, &forward.k, &forward.v}) {
      std::vector<double> values = reference::read_tensor(*view, forward.layout);
      for (double& value : values)
        value *= scale_;
      reference::write_tensor(*view, forward.layout, values);
    }
  }

  /// NaN where the query is padding and the problem poisons what nobody may look at.
  void fill_gradient(std::uint64_t seed) {
    AttentionForward forward = problem_.call();
    const reference::Relation relation(forward, problem_.pattern());
    std::mt19937_64 generator(seed + 77);
    std::normal_distribution<double> normal;
    dout_->fill([&](auto b, auto i, auto j, auto) -> std::optional<double> {
      if (relation.query_group(b, forward.layout == Layout::raster ? i : j) == reference::Relation::padding)
        return std::nullopt;
      return scale_ * normal(generator);
    });
  }

  void compare(const char* name, HostTensor& tensor, const TensorView& view, std::span<const double> expected,
               std::string& complaints) const {
    const double tolerance = BackwardTolerances::of(view.dtype).relative_l2;
    if (const std::size_t unwritten = tensor.unwritten(); unwritten > 0)
      complaints += fmt::format("\n  {} elements of {} were not written", unwritten, name);
    if (const std::size_t damaged = tensor.damaged_bytes(); damaged > 0)
      complaints += fmt::format("\n  {} bytes beside {}'s elements were written", damaged, name);
    const auto actual = reference::read_tensor(view, call_.layout);
    const reference::OutputError error = reference::output_error(actual, expected);
    if (!(error.relative_l2 <= tolerance) && !(error.max_absolute <= negligible()))
      complaints += fmt::format("\n  {}: relative L2 error {:.3g} > {:.3g}, {:.3g} at most", name, error.relative_l2,
                                tolerance, error.max_absolute);
    const auto width = static_cast<std::size_t>(view.extents[3]);
    std::size_t not_zero = 0; // rows of padding, without keys, or that no query sees
    for (std::size_t first = 0; first < expected.size(); first += width) {
      const auto is_zero = [](double value) { return value == 0; };
      const auto expected_row = expected.subspan(first, width);
      const auto actual_row = std::span(actual).subspan(first, width);
      not_zero += std::all_of(expected_row.begin(), expected_row.end(), is_zero) &&
                          !std::all_of(actual_row.begin(), actual_row.end(), is_zero)
                      ? 1
                      : 0;
    }
    // A row that sees one key has dq = 0 in float64, too, but a rounding error in float32.
    if (not_zero > 0 && !(error.max_absolute <= negligible()))
      complaints += fmt::format("\n  {}: {} rows should be 0", name, not_zero);
  }

  /// Where every row sees one key, the true dq and dk are 0 and the float32 ones are rounding errors.
  [[nodiscard]] double negligible() const {
    return 4e-3 * scale_ * scale_ * scale_ * (call_.q.dtype == DataType::bf16 ? 8 : 1);
  }

  RandomProblem problem_;
  double scale_;
  std::list<HostTensor> tensors_, lse_;
  HostTensor *dout_ = nullptr, *dq_ = nullptr, *dk_ = nullptr, *dv_ = nullptr;
  std::size_t added_ = 0;
  std::vector<std::byte> workspace_;
  std::size_t workspace_offset_ = 0;
  AttentionBackward call_;
  std::optional<reference::Gradients> expected_;
};

} // namespace tilewright::testing
