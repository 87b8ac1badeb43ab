// One attention call out of a file's tensors, or out of random numbers: everything in host memory.
#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include "block_lists.hpp"
#include "host_tensor.hpp"
#include "options.hpp"
#include "safetensors.hpp"
#include <tilewright/pattern.hpp>
#include <tilewright/runtime.hpp>

namespace tilewright::tools {

/// The call and the pattern point into the tensors and lists beside them. out and lse are poisoned.
struct AttentionInput {
  HostTensor q, k, v, out, lse;
  HostLists lists;
  std::vector<std::int32_t> query_sizes, key_sizes;
  AttentionForward call;
  Pattern pattern;

  AttentionInput() = default;
  AttentionInput(AttentionInput&&) noexcept = default;
  AttentionInput& operator=(AttentionInput&&) noexcept = default;
};

/// q, k and v as [batch, T, H, W, heads, head_dim] (raster; the canvas is known), or [batch, tokens, heads, head_dim]
/// (raster), or [batch, heads, tokens, head_dim] (tiled); which of the last two the problem's layout says. Throws
/// invalid_argument where a tensor is missing or does not fit the problem; UsageError where an option does not.
AttentionInput read_attention_input(const Problem& problem, Safetensors&& file, const PatternChoice& choice);

/// Extents of tensors that no file gives.
struct RandomShape {
  std::int64_t batch = 1, heads = 24;
  std::optional<std::int64_t> kv_heads;   // none: heads
  std::optional<std::int64_t> tokens;     // dense: of the queries, and of the keys unless key_tokens is given
  std::optional<std::int64_t> key_tokens; // dense
  std::uint64_t seed = 0;                 // of the numbers and of random block lists
};

/// Normally distributed q, k and v for the problem. Block lists: from the choice's file, else topk random key tiles a
/// query tile.
AttentionInput make_random_input(const Problem& problem, const RandomShape& shape, const PatternChoice& choice);

/// The same call with every key tile in reach of every query tile.
Pattern keep_everything(const AttentionInput& input, HostLists& lists);

} // namespace tilewright::tools
