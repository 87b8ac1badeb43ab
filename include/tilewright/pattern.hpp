// Patterns as the host application states them: who attends to whom, with this call's run-time values.
#pragma once

#include <cstdint>
#include <optional>
#include <variant>
#include <vector>

#include <tilewright/types.hpp>

namespace tilewright {

using Canvas = Extent3; // tokens
using Tile = Extent3;   // tokens
using Window = Extent3; // tiles

/// Every query attends to every key. The lengths are the tensors' token extents; they may differ.
struct Dense {};

/// Sliding tile attention (STA; arXiv 2502.04507, edge rule in docs/semantics.md). A query tile attends to
/// the window of tiles around it, slid inward at the canvas's edges, and to the text.
///
///     SlidingTile{.canvas = {30, 48, 80}, .tile = {6, 8, 8}, .windows = {{3, 3, 3}}, .text_length = 256}
struct SlidingTile {
  Canvas canvas;
  Tile tile{6, 8, 8};
  std::vector<Window> windows; // one for all heads, or one per head; an even extent acts as the next odd one
  std::optional<std::int64_t> text_length{}; // none: no text part. Valid text tokens, at most those in the tensors
};

/// Each query tile attends to its own ascending list of key tiles. Lists are in the device's memory.
///
/// counts   int32 [batch | 1, heads | 1, query tiles]: how many entries of the list are used (0 is allowed)
/// indices  int32 [batch | 1, heads | 1, query tiles, capacity]: ascending key tile numbers
/// query_sizes, key_sizes  int32 [tiles] (shared) or [batch, tiles]: valid tokens of each tile, tiled
///          layout only; without them they follow from the canvas
///
/// A plain sequence of blocks is a canvas of {1, 1, length} with tiles of {1, 1, block}: see linear().
struct BlockList {
  Canvas canvas;
  Tile tile{4, 4, 4};
  TensorView counts{}, indices{};
  std::optional<Canvas> key_canvas{}; // none: the same as the queries'
  std::optional<Tile> key_tile{};     // none: the same as the queries'
  std::optional<TensorView> query_sizes{}, key_sizes{};
  /// Query tiles that are neighbours share most of their lists, as those of a video do: the kernel that reads what they
  /// share once is chosen. A matter of speed only: on an H100 9 % faster where it is true, 10 % slower where lists
  /// share nothing.
  bool neighbours_share = false;
  bool validate_lists = false; // copy the lists to the host and check them first: synchronises, for debugging

  static BlockList linear(std::int32_t query_length, std::int32_t key_length, std::int32_t query_block,
                          std::int32_t key_block, TensorView counts, TensorView indices);
};

using Pattern = std::variant<Dense, SlidingTile, BlockList>;

} // namespace tilewright
