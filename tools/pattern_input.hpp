// A pattern out of a problem's line, the command's options and a file of lists: everything in host memory.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <vector>

#include "block_lists.hpp"
#include "options.hpp"
#include "problem/relation.hpp"
#include <tilewright/pattern.hpp>
#include <tilewright/problem.hpp>

namespace tilewright::tools {

/// The pattern of one call. Block lists point into the vectors beside the pattern.
struct PatternInput {
  Pattern pattern;
  std::int64_t heads = 1;
  HostLists lists;
  std::vector<std::int32_t> query_sizes, key_sizes;

  PatternInput() = default;
  PatternInput(PatternInput&&) noexcept = default;
  PatternInput& operator=(PatternInput&&) noexcept = default;
};

/// What the tensors say of the canvases, where they say something.
struct KnownCanvases {
  std::optional<Canvas> queries, keys;
};

/// Makes block lists where no file gives them: --topk's.
using ListMaker =
    std::function<HostLists(const problem::Tiling& queries, const problem::Tiling& keys, std::int64_t topk)>;

/// Throws UsageError where an option is missing, contradicts the tensors, or is of no use to the pattern.
PatternInput make_pattern(const Problem& problem, const PatternChoice& choice, std::int64_t heads,
                          const KnownCanvases& known, const ListMaker& make_lists);

/// The same pattern with every key tile in reach of every query tile.
PatternInput keep_everything(const PatternInput& input);

/// The canvas that an option and the tensors agree on. Throws UsageError where neither says it.
Canvas require_canvas(const std::string& option, const std::string& text, std::optional<Canvas> of_tensors);

} // namespace tilewright::tools
