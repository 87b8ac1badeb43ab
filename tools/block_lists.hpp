// Block lists in host memory: read from a file, drawn at random, or complete.
#pragma once

#include <cstdint>
#include <string_view>
#include <vector>

#include "safetensors.hpp"
#include <tilewright/pattern.hpp>

namespace tilewright::tools {

/// counts [batch, heads, query tiles], indices [batch, heads, query tiles, capacity]; batch and heads may be 1 for
/// all. Entries from a list's count on are 0.
struct HostLists {
  std::int64_t batch = 1, heads = 1, query_tiles = 0, capacity = 0;
  std::vector<std::int32_t> counts, indices;

  /// Empty lists: counts and indices are 0.
  static HostLists empty(std::int64_t batch, std::int64_t heads, std::int64_t query_tiles, std::int64_t capacity);

  /// The list of one query tile, shared batches and heads resolved.
  [[nodiscard]] std::span<const std::int32_t> list(std::int64_t b, std::int64_t head, std::int64_t query_tile) const;

  /// Sets the pattern's counts and indices to these lists, which must outlive it.
  void bind(BlockList& pattern);
};

/// key_blocks [batch, heads, query tiles, count], or counts [batch, heads, query tiles] and indices [.., capacity], of
/// any integer type that fits. Every list must be ascending and within 0 .. key_tiles - 1; throws invalid_argument,
/// with the place of the offence.
HostLists read_lists(const Safetensors& file, std::int64_t query_tiles, std::int64_t key_tiles);

/// count different key tiles for every query tile.
HostLists random_lists(std::int64_t batch, std::int64_t heads, std::int64_t query_tiles, std::int64_t key_tiles,
                       std::int64_t count, std::uint64_t seed);

/// Every key tile for every query tile, one list for all batches and heads.
HostLists complete_lists(std::int64_t query_tiles, std::int64_t key_tiles);

} // namespace tilewright::tools
