// Block lists that a test writes down itself, over blocks of 64 tokens in one sequence.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>
#include <optional>
#include <random>
#include <string>
#include <vector>

#include <fmt/format.h>

#include "reference/convert.hpp"
#include "support_tensor.hpp"
#include <tilewright/reference.hpp>
#include <tilewright/runtime.hpp>

namespace tilewright::testing {

/// What else a call with written lists may have.
struct ListedForm {
  std::vector<int> key_sizes = {}; // valid tokens of each key block; empty: all
  bool coarse = false;             // out = attention + coarse
};

class ListedBlocks {
public:
  /// The key blocks of each query block, ascending. Entries behind a list's end name the last key block, and a count
  /// before the first is 0: what a kernel that looks too far would believe.
  ListedBlocks(const std::vector<std::vector<int>>& lists, std::int64_t key_blocks, const ListedForm& form = {})
      : query_blocks_(static_cast<std::int64_t>(lists.size())), key_blocks_(key_blocks), form_(form),
        q_(DataType::bf16, {1, 1, query_blocks_ * block, head_dim}),
        k_(DataType::bf16, {1, 1, key_blocks * block, head_dim}),
        v_(DataType::bf16, {1, 1, key_blocks * block, head_dim}),
        out_(DataType::bf16, {1, 1, query_blocks_ * block, head_dim}),
        counts_(DataType::int32, {1, 1, query_blocks_ + 1}),
        indices_(DataType::int32, {1, 1, query_blocks_, longest(lists) + 1}),
        coarse_(DataType::float32, {1, 1, query_blocks_, head_dim}) {
    std::mt19937 random(7);
    std::normal_distribution<double> normal;
    const auto valid = [&](auto row) {
      return form_.key_sizes.empty() || row % block < form_.key_sizes[static_cast<std::size_t>(row / block)];
    };
    q_.fill([&](auto...) { return normal(random); });
    coarse_.fill([&](auto...) { return normal(random); });
    for (HostTensor* tensor : {&k_, &v_})
      tensor->fill([&](auto, auto, auto row, auto) -> std::optional<double> {
        const double value = normal(random);
        return valid(row) ? std::optional(value) : std::nullopt; // padding stays NaN
      });
    const auto list_of = [&](auto tile) -> const auto& { return lists[static_cast<std::size_t>(tile)]; };
    counts_.fill(
        [&](auto, auto, auto tile, auto) { return tile == 0 ? 0. : static_cast<double>(list_of(tile - 1).size()); });
    indices_.fill([&](auto, auto, auto tile, auto entry) {
      const auto at = static_cast<std::size_t>(entry);
      return at < list_of(tile).size() ? list_of(tile)[at] : static_cast<double>(key_blocks - 1);
    });
  }

  /// Runs it and says what is wrong; empty where nothing is.
  std::string check(Runtime& runtime) {
    out_.poison_all();
    runtime.attention_forward(call(), pattern());
    if (expected_.empty()) {
      expected_ = reference::attention_forward(call(), pattern()).out; // one batch and one head: the output's order
      reference::blend_into(expected_, call(), pattern());
    }
    // bf16 inputs and probabilities, as everywhere: rounding alone gives about 2.5e-3.
    constexpr double tolerance = 6e-3;
    const double error = relative_error();
    if (out_.unwritten() == 0 && out_.damaged_bytes() == 0 && error <= tolerance) // NaN, for poison, is not below it
      return {};
    return fmt::format("{} elements were not written, {} bytes beside them were, relative error {:.3g} > {:.3g}",
                       out_.unwritten(), out_.damaged_bytes(), error, tolerance);
  }

private:
  static constexpr std::int64_t block = 64, head_dim = 64;

  static std::int64_t longest(const std::vector<std::vector<int>>& lists) {
    std::size_t most = 0;
    for (const auto& list : lists)
      most = std::max(most, list.size());
    return static_cast<std::int64_t>(most);
  }

  [[nodiscard]] AttentionForward call() const {
    AttentionForward call{.q = q_.view(), .k = k_.view(), .v = v_.view(), .out = out_.view(), .layout = Layout::tiled};
    if (form_.coarse)
      call.coarse = coarse_.view();
    return call;
  }
  [[nodiscard]] BlockList pattern() {
    TensorView counts = counts_.view();
    counts.data = static_cast<std::int32_t*>(counts.data) + 1;
    --counts.extents[2];
    BlockList pattern =
        BlockList::linear(static_cast<std::int32_t>(query_blocks_ * block),
                          static_cast<std::int32_t>(key_blocks_ * block), block, block, counts, indices_.view());
    if (!form_.key_sizes.empty())
      pattern.key_sizes = TensorView::contiguous(form_.key_sizes.data(), DataType::int32, {key_blocks_});
    return pattern;
  }

  [[nodiscard]] double relative_error() const {
    double error = 0, norm = 0;
    for (std::size_t i = 0; i < expected_.size(); ++i) {
      std::uint16_t bits;
      std::memcpy(&bits, static_cast<const std::byte*>(out_.view().data) + 2 * i, sizeof(bits));
      const double difference = reference::decode(DataType::bf16, bits) - expected_[i];
      error += difference * difference;
      norm += expected_[i] * expected_[i];
    }
    return std::sqrt(error / norm);
  }

  std::int64_t query_blocks_, key_blocks_;
  ListedForm form_;
  HostTensor q_, k_, v_, out_, counts_, indices_, coarse_;
  std::vector<double> expected_;
};

} // namespace tilewright::testing
