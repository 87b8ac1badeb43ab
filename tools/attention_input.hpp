// One attention call out of a file's tensors, or out of random numbers: everything in host memory.
#pragma once

#include <cstdint>
#include <optional>

#include "host_tensor.hpp"
#include "options.hpp"
#include "pattern_input.hpp"
#include "safetensors.hpp"
#include <tilewright/runtime.hpp>

namespace tilewright::tools {

/// The element type of files that kernels know as bf16 or fp16.
ElementType element_type(DataType type);

/// A call that points into the tensors beside it. out and lse are poisoned.
struct AttentionInput {
  HostTensor q, k, v, out, lse;
  AttentionForward call;
  KnownCanvases canvases; // where the tensors' shapes tell them
  PatternInput relation;

  /// Throws invalid_argument where a tensor's shape or type does not fit the problem.
  AttentionInput(const Problem& problem, HostTensor query, HostTensor key, HostTensor value);
  AttentionInput(AttentionInput&&) noexcept = default;
  AttentionInput& operator=(AttentionInput&&) noexcept = default;

  /// Throws UsageError where an option does not fit, invalid_argument where the tensors make another problem of it than
  /// the one that was named.
  void set_pattern(const Problem& problem, const PatternChoice& choice, const ListMaker& make_lists);

  [[nodiscard]] std::int64_t heads() const noexcept { return lse.shape[1]; }
};

/// q, k and v as [batch, T, H, W, heads, head_dim] (raster; the canvas is known), or [batch, tokens, heads, head_dim]
/// (raster), or [batch, heads, tokens, head_dim] (tiled); which of the last two the problem's layout says. --topk
/// selects by VSA's rule. Throws as AttentionInput's functions, and where a tensor is missing.
AttentionInput read_attention_input(const Problem& problem, Safetensors&& file, const PatternChoice& choice);

/// Extents of tensors that no file gives.
struct RandomShape {
  std::int64_t batch = 1, heads = 24;
  std::optional<std::int64_t> kv_heads;   // none: heads
  std::optional<std::int64_t> tokens;     // dense: of the queries, and of the keys unless key_tokens is given
  std::optional<std::int64_t> key_tokens; // dense
  std::uint64_t seed = 0;                 // of the numbers and of random block lists
};

/// Normally distributed q, k and v for the problem. --topk draws the lists at random.
AttentionInput make_random_input(const Problem& problem, const RandomShape& shape, const PatternChoice& choice);

} // namespace tilewright::tools
