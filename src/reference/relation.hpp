// Who attends to whom in one call, asked pair by pair.
#pragma once

#include <cstdint>
#include <vector>

#include <tilewright/pattern.hpp>
#include <tilewright/runtime.hpp>

namespace tilewright::reference {

/// The sizes of a call. Queries and keys count tensor rows, padding and text included.
struct Shape {
  std::int64_t batch, heads, kv_heads, queries, keys, head_dim;
};

/// Throws invalid_argument unless q, k and v fit each other; does not look at their memory.
Shape shape_of(const AttentionForward& call);

/// The relation of one call. Immutable; block lists are read from the caller's host memory when asked.
class Relation {
public:
  /// Throws invalid_argument, naming the argument, where the pattern does not fit the call's tensors.
  Relation(const AttentionForward& call, const Pattern& pattern);

  /// Rows of one group attend to the same keys, or are attended to by the same queries: the rows of a tile, or the
  /// text. padding: no token at all.
  static constexpr std::int32_t padding = -1;
  [[nodiscard]] std::int32_t query_group(std::int64_t batch, std::int64_t row) const noexcept {
    return group_of(query_groups_, shape_.queries, batch, row);
  }
  [[nodiscard]] std::int32_t key_group(std::int64_t batch, std::int64_t row) const noexcept {
    return group_of(key_groups_, shape_.keys, batch, row);
  }

  [[nodiscard]] bool attends(std::int64_t batch, std::int64_t head, std::int64_t query_row, std::int64_t key_row) const;

  [[nodiscard]] const Shape& shape() const noexcept { return shape_; }

private:
  using Groups = std::vector<std::int32_t>; // of each row; of each batch where they differ

  static std::int32_t group_of(const Groups& groups, std::int64_t rows, std::int64_t batch, std::int64_t row) noexcept {
    const bool shared = static_cast<std::int64_t>(groups.size()) == rows;
    return groups[static_cast<std::size_t>((shared ? 0 : batch * rows) + row)];
  }
  void set_up(const Dense& pattern, Layout layout);
  void set_up(const SlidingTile& pattern, Layout layout);
  void set_up(const BlockList& pattern, Layout layout);

  Shape shape_;
  Pattern pattern_;
  Groups query_groups_, key_groups_;
};

} // namespace tilewright::reference
