// Random problems of video sparse attention's gradient: a RandomVideoSparse whose forward pass has run, a random
// gradient of its output, and places for dq, dk, dv and dgate.
#pragma once

#include <cmath>
#include <cstdint>
#include <limits>
#include <list>
#include <optional>
#include <random>
#include <span>
#include <string>
#include <vector>

#include "reference/tiles.hpp"
#include "support_video_sparse.hpp"

namespace tilewright::testing {

class RandomVideoSparseBackward {
public:
  /// Without a gate's gradient once in a while, where there is a gate.
  RandomVideoSparseBackward(std::uint64_t seed, VideoSparseLimits limits, const ChoiceList* list = nullptr)
      : seed_(seed), problem_(seed, for_training(limits), list), generator_(seed + 77) {
    const VideoSparseAttention& forward = problem_.call();
    dout_ = &like(forward.q);
    dq_ = &like(forward.q);
    dk_ = &like(forward.k);
    dv_ = &like(forward.v);
    if (forward.gate && seed % 5 != 0)
      dgate_ = &like(forward.q);
    fill_gradient();
  }

  [[nodiscard]] ChoiceList choices() const { return problem_.choices(); }
  [[nodiscard]] RandomVideoSparse& problem() noexcept { return problem_; }
  [[nodiscard]] std::list<HostTensor>& tensors() noexcept { return problem_.tensors(); }

  [[nodiscard]] VideoSparseAttentionBackward call() const {
    VideoSparseAttentionBackward call{problem_.call(), dout_->view(), dq_->view(), dk_->view(),
                                      dv_->view(),     std::nullopt,  nullptr,     0};
    if (dgate_ != nullptr)
      call.dgate = dgate_->view();
    if (workspace_ != nullptr) {
      const auto address = reinterpret_cast<std::uintptr_t>(workspace_->view().data);
      call.workspace = reinterpret_cast<void*>((address + 255) / 256 * 256);
      call.workspace_bytes = Runtime::workspace_bytes(call);
    }
    return call;
  }
  /// The call with every pointer replaced by move(pointer).
  template <typename Move> [[nodiscard]] VideoSparseAttentionBackward relocated(Move move) const {
    VideoSparseAttentionBackward placed = call();
    placed.forward = problem_.relocated(move);
    for (TensorView* view : {&placed.dout, &placed.dq, &placed.dk, &placed.dv})
      view->data = move(view->data);
    if (placed.dgate)
      placed.dgate->data = move(placed.dgate->data);
    placed.workspace = move(placed.workspace);
    return placed;
  }

  /// Runs forward(call), which RandomVideoSparse checks, then poisons the gradients and the workspace, and calls
  /// backward(call). Empty where all is right.
  template <typename Forward, typename Backward>
  std::string check(Runtime& runtime, Forward&& forward, Backward&& backward) {
    std::string wrong = problem_.check(runtime, forward);
    if (!wrong.empty())
      return wrong;
    make_workspace();
    poison();
    const auto before = inputs();
    backward(call());
    if (inputs() != before)
      wrong += "\n  an input was written to";
    wrong += complaints();
    return wrong.empty() ? "" : fmt::format("seed {}: {}{}", seed_, problem_.description(), wrong);
  }

  void make_workspace() {
    if (workspace_ == nullptr)
      workspace_ = &problem_.tensors().emplace_back(
          DataType::bf16, Extents{static_cast<std::int64_t>(Runtime::workspace_bytes(call()) / 2 + 128)});
  }

  void poison() {
    for (HostTensor* tensor : gradients())
      tensor->poison_all();
    workspace_->poison_all();
  }

  /// The bytes of all gradients: for comparing runs bit by bit.
  [[nodiscard]] std::vector<std::byte> gradient_bytes() const {
    std::vector<std::byte> bytes;
    for (const HostTensor* tensor : gradients())
      bytes.insert(bytes.end(), tensor->allocation(), tensor->allocation() + tensor->allocation_bytes());
    return bytes;
  }

  /// What is wrong with the gradients as they stand, given the selection that stands in the forward call's workspace.
  std::string complaints() {
    const VideoSparseAttentionBackward call = this->call();
    const VideoSparseWorkspace& forward = problem_.workspace();
    const reference::VideoSparseGradients expected =
        reference::video_sparse_attention_backward(call, &forward.counts, &forward.indices);
    std::string complaints;
    const Canvas key_canvas = call.forward.key_canvas.value_or(call.forward.canvas);
    compare("dq", *dq_, call.forward.canvas, call.forward.query_sizes, expected.dq, expected.dq_terms, complaints);
    compare("dk", *dk_, key_canvas, call.forward.key_sizes, expected.dk, expected.dk_terms, complaints);
    compare("dv", *dv_, key_canvas, call.forward.key_sizes, expected.dv, 0, complaints);
    if (dgate_ != nullptr)
      compare("dgate", *dgate_, call.forward.canvas, call.forward.query_sizes, expected.dgate, 0, complaints);
    return complaints;
  }

private:
  using Extents = std::initializer_list<std::int64_t>;

  static VideoSparseLimits for_training(VideoSparseLimits limits) {
    limits.training = true;
    return limits;
  }

  HostTensor& like(const TensorView& view) {
    const auto& e = view.extents;
    const auto gap = static_cast<std::int64_t>(8 * (generator_() % 3)); // elements
    const std::int64_t inner = e[3], middle = e[2] * inner + gap, outer = e[1] * middle;
    return problem_.tensors().emplace_back(view.dtype, Extents{e[0], e[1], e[2], e[3]},
                                           std::vector{outer, middle, inner, std::int64_t{1}});
  }

  /// Padding stays poison: NaN.
  void fill_gradient() {
    const VideoSparseAttention& forward = problem_.call();
    const problem::Tiling queries(forward.canvas, forward.tile);
    std::normal_distribution<double> normal;
    dout_->fill([&](auto b, auto i, auto j, auto) -> std::optional<double> {
      const auto row = forward.layout == Layout::raster ? i : j;
      return reference::tile_of(queries, forward.layout, forward.query_sizes, b, row)
                 ? std::optional(problem_.activation() * (normal(generator_) + 0.25))
                 : std::nullopt;
    });
  }

  [[nodiscard]] std::vector<HostTensor*> gradients() const {
    std::vector<HostTensor*> all{dq_, dk_, dv_};
    if (dgate_ != nullptr)
      all.push_back(dgate_);
    return all;
  }

  [[nodiscard]] std::vector<std::byte> inputs() {
    const auto written = gradients();
    std::vector<std::byte> bytes;
    for (const HostTensor& tensor : problem_.tensors())
      if (std::find(written.begin(), written.end(), &tensor) == written.end() && &tensor != workspace_)
        bytes.insert(bytes.end(), tensor.allocation(), tensor.allocation() + tensor.allocation_bytes());
    return bytes;
  }

  /// Relative L2 of 1e-2 (bf16) and 3e-3 (fp16), as docs/backward.md promises. Where terms cancel (keys that are all
  /// alike, probabilities of 1) the error is what rounding each term to the type leaves: half a unit of it. What lies
  /// beyond fp16's range is infinite, there is no other right answer.
  void compare(const char* name, HostTensor& tensor, const Canvas& canvas, const std::optional<TensorView>& sizes,
               std::span<const double> expected, double terms, std::string& complaints) const {
    const VideoSparseAttention& forward = problem_.call();
    const problem::Tiling tiling(canvas, forward.tile);
    const std::int64_t rows = tiling.token_count(forward.layout);
    const bool bf16 = tensor.view().dtype == DataType::bf16;
    const double tolerance = bf16 ? 1e-2 : 3e-3, half_unit = bf16 ? 1.0 / 256 : 1.0 / 2048;
    if (const std::size_t unwritten = tensor.unwritten(); unwritten > 0)
      complaints += fmt::format("\n  {} elements of {} were not written", unwritten, name);
    if (const std::size_t damaged = tensor.damaged_bytes(); damaged > 0)
      complaints += fmt::format("\n  {} bytes beside {}'s elements were written", damaged, name);
    const auto actual = reference::read_tensor(tensor.view(), problem_.call().layout);
    const double largest = bf16 ? std::numeric_limits<double>::infinity() : 65504 * (1 - tolerance);
    double squared_error = 0, squared_norm = 0;
    std::size_t not_zero = 0;
    const auto width = static_cast<std::size_t>(tensor.view().extents[3]);
    for (std::size_t first = 0; first < expected.size(); first += width) {
      const auto row = static_cast<std::int64_t>(first / width) % rows;
      const auto batch = static_cast<std::int64_t>(first / width) / rows / heads_of(tensor);
      const bool padding = !reference::tile_of(tiling, forward.layout, sizes, batch, row);
      bool zero = true;
      for (std::size_t i = first; i < first + width; ++i) {
        if (!(std::isinf(actual[i]) && actual[i] * expected[i] > 0 && std::abs(expected[i]) > largest))
          squared_error += (actual[i] - expected[i]) * (actual[i] - expected[i]);
        squared_norm += expected[i] * expected[i];
        zero = zero && actual[i] == 0;
      }
      not_zero += padding && !zero ? 1 : 0;
    }
    const double error = std::sqrt(squared_error), norm = std::sqrt(squared_norm);
    if (!(error <= tolerance * norm + half_unit * terms)) // NaN fails, too
      complaints += fmt::format("\n  {}: error {:.3g} of {:.3g} (relative L2 {:.3g}), {:.3g} is allowed", name, error,
                                norm, error / norm, tolerance * norm + half_unit * terms);
    if (not_zero > 0)
      complaints += fmt::format("\n  {}: {} rows of padding should be 0", name, not_zero);
  }

  [[nodiscard]] std::int64_t heads_of(const HostTensor& tensor) const {
    return tensor.view().extents[problem_.call().layout == Layout::raster ? 2 : 1];
  }

  std::uint64_t seed_;
  RandomVideoSparse problem_;
  std::mt19937_64 generator_;
  HostTensor *dout_ = nullptr, *dq_ = nullptr, *dk_ = nullptr, *dv_ = nullptr, *dgate_ = nullptr, *workspace_ = nullptr;
};

} // namespace tilewright::testing
