// Random problems of the backward pass: a RandomProblem with the forward result that belongs to it (in float64, rounded
// once), a random gradient, of every other one's log-sum-exp too, and places for dq, dk and dv.
//
//     CHECK(RandomBackward(seed, {}).check([&](const AttentionBackward& call, const Pattern& pattern) {
//             runtime.attention_backward(call, pattern);
//           }) == "");
#pragma once

#include <algorithm>
#include <cmath>
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

/// How far a gradient may be from the float64 one that takes delta from the same rounded out (the rounding of out is
/// the forward call's error, and no kernel can see it): in L2, at most
///     relative_l2 * |expected| + noise
/// relative_l2: probabilities and the scores' gradients are rounded to 8 (bf16) or 11 (fp16) significant bits, an error
/// of half a unit each, and the result once more.
/// noise: dP - delta is a difference of two float32 sums of head_dim products, each off by about sqrt(head_dim) 2^-24
/// |dO| |V|, and where a row attends to little more than one key nothing else is left of it. Times a probability, and
/// the probabilities of a row sum up to 1, it reaches dq times scale |K| and dk times scale |q|. Errors of different
/// rows are independent: their squares add up.
struct BackwardTolerances {
  double relative_l2;
  /// Of one element of dP - delta, over |dO| |V|. 8: two sums, four standard deviations.
  static double noise(std::int64_t head_dim) { return 8 * std::sqrt(static_cast<double>(head_dim)) * 0x1p-24; }

  static constexpr BackwardTolerances of(DataType dtype) noexcept { return {dtype == DataType::bf16 ? 1e-2 : 3e-3}; }
};

class RandomBackward {
public:
  /// activation_scale multiplies what q, k, v and dout are drawn with.
  explicit RandomBackward(std::uint64_t seed, const RandomLimits& limits = {}, double activation_scale = 1,
                          const ChoiceList* list = nullptr)
      : problem_(seed, limits, list), scale_(activation_scale) {
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
    if (seed % 2 == 1)
      call_.dlse = add_lse();
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

  [[nodiscard]] ChoiceList choices() const { return problem_.choices(); }
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
    if (call.dlse)
      call.dlse->data = move(call.dlse->data);
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
    if (!expected_) {
      expected_ = reference::attention_backward(call_, problem_.pattern(), 0, reference::BackwardDelta::of_out);
      estimate_noise();
    }
    const auto lse = reference::read_lse(call_.lse);
    std::string complaints;
    compare("dq", *dq_, call_.dq, expected_->dq, query_noise_, complaints,
            [&](std::size_t row) { return std::isinf(lse[row]); });
    // A key that no query sees has dv = 0. So has one whose probabilities are all too small for float64; for float32,
    // too, then.
    const auto unseen = [&, width = static_cast<std::size_t>(call_.v.extents[3])](std::size_t row) {
      return all_zero(std::span(expected_->dv).subspan(row * width, width));
    };
    compare("dk", *dk_, call_.dk, expected_->dk, key_noise_, complaints, unseen);
    compare("dv", *dv_, call_.dv, expected_->dv, 0, complaints, unseen);
    empty_query_rows_ =
        static_cast<std::size_t>(std::count_if(lse.begin(), lse.end(), [](double value) { return std::isinf(value); }));
    empty_key_rows_ = 0;
    for (std::size_t row = 0; row < expected_->dv.size() / static_cast<std::size_t>(call_.v.extents[3]); ++row)
      empty_key_rows_ += unseen(row) ? 1 : 0;
    return complaints.empty() ? "" : fmt::format("{} scale={}{}", problem_.description(), scale_, complaints);
  }

  /// Rows of dq, and of dk and dv, that must be 0; after complaints().
  [[nodiscard]] std::size_t empty_query_rows() const noexcept { return empty_query_rows_; }
  [[nodiscard]] std::size_t empty_key_rows() const noexcept { return empty_key_rows_; }

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

  /// dout and dlse: NaN where the query is padding and the problem poisons what nobody may look at.
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
    if (call_.dlse)
      lse_.back().fill([&](auto b, auto, auto token, auto) -> std::optional<double> {
        if (relation.query_group(b, token) == reference::Relation::padding)
          return std::nullopt;
        return scale_ * normal(generator);
      });
  }

  static bool all_zero(std::span<const double> values) {
    return std::all_of(values.begin(), values.end(), [](double value) { return value == 0; });
  }

  /// Euclidean norms of a tensor's rows [batch, heads, tokens]; 0 for poisoned ones.
  [[nodiscard]] std::vector<double> row_norms(const TensorView& view) const {
    const auto width = static_cast<std::size_t>(view.extents[3]);
    const std::vector<double> values = reference::read_tensor(view, call_.layout);
    std::vector<double> norms(values.size() / width);
    for (std::size_t i = 0; i < values.size(); ++i)
      norms[i / width] += values[i] * values[i];
    for (double& norm : norms)
      norm = std::isfinite(norm) ? std::sqrt(norm) : 0;
    return norms;
  }

  void estimate_noise() {
    const std::vector<double> query = row_norms(call_.q), gradient = row_norms(call_.dout), key = row_norms(call_.k),
                              value = row_norms(call_.v);
    const std::int64_t head_dim = call_.q.extents[3];
    const double scale = call_.scale ? double{*call_.scale} : 1 / std::sqrt(static_cast<double>(head_dim));
    const double largest_key = *std::max_element(key.begin(), key.end());
    const double each = scale * BackwardTolerances::noise(head_dim) * *std::max_element(value.begin(), value.end());
    double query_squares = 0, key_squares = 0;
    for (std::size_t row = 0; row < query.size(); ++row) {
      query_squares += std::pow(each * gradient[row] * largest_key, 2);
      key_squares += std::pow(each * gradient[row] * query[row], 2);
    }
    query_noise_ = std::sqrt(query_squares);
    key_noise_ = std::sqrt(key_squares);
  }

  /// must_be_zero(row): whether a row of [batch, heads, tokens] is padding, without keys, or seen by no query.
  template <typename MustBeZero>
  void compare(const char* name, HostTensor& tensor, const TensorView& view, std::span<const double> expected,
               double noise, std::string& complaints, MustBeZero must_be_zero) const {
    if (const std::size_t unwritten = tensor.unwritten(); unwritten > 0)
      complaints += fmt::format("\n  {} elements of {} were not written", unwritten, name);
    if (const std::size_t damaged = tensor.damaged_bytes(); damaged > 0)
      complaints += fmt::format("\n  {} bytes beside {}'s elements were written", damaged, name);
    const auto actual = reference::read_tensor(view, call_.layout);
    double squares = 0, expected_squares = 0;
    for (std::size_t i = 0; i < actual.size(); ++i) {
      squares += (actual[i] - expected[i]) * (actual[i] - expected[i]); // NaN where anything is
      expected_squares += expected[i] * expected[i];
    }
    const double error = std::sqrt(squares), norm = std::sqrt(expected_squares);
    const double relative = BackwardTolerances::of(view.dtype).relative_l2;
    if (!(error <= relative * norm + noise))
      complaints +=
          fmt::format("\n  {}: L2 error {:.3g} > {:.3g} * {:.3g} + {:.3g}", name, error, relative, norm, noise);
    const auto width = static_cast<std::size_t>(view.extents[3]);
    std::size_t not_zero = 0;
    for (std::size_t row = 0; row < expected.size() / width; ++row)
      not_zero += must_be_zero(row) && !all_zero(std::span(actual).subspan(row * width, width)) ? 1 : 0;
    if (not_zero > 0)
      complaints += fmt::format("\n  {}: {} rows should be 0", name, not_zero);
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
  double query_noise_ = 0, key_noise_ = 0; // L2 of dq and dk
  std::size_t empty_query_rows_ = 0, empty_key_rows_ = 0;
};

} // namespace tilewright::testing
