// Which query tiles attend to which key tiles, as one matrix a head.
#pragma once

#include <cstdint>
#include <optional>

#include "pattern_input.hpp"
#include "problem/relation.hpp"

namespace tilewright::tools {

/// Refers to the input that it is made of. Text, where the pattern has some, is one more tile on both sides.
class BlockMap {
public:
  explicit BlockMap(const PatternInput& input);

  /// Nothing for a dense pattern: it is one block that attends to itself.
  [[nodiscard]] const std::optional<problem::Tiling>& queries() const noexcept { return queries_; }
  [[nodiscard]] const std::optional<problem::Tiling>& keys() const noexcept { return keys_; }
  [[nodiscard]] std::int64_t batches() const noexcept { return batches_; }
  [[nodiscard]] std::int64_t heads() const noexcept { return heads_; }
  [[nodiscard]] std::int64_t query_tiles() const noexcept { return query_tiles_; }
  [[nodiscard]] std::int64_t key_tiles() const noexcept { return key_tiles_; }

  [[nodiscard]] bool attends(std::int64_t batch, std::int64_t head, std::int64_t query_tile,
                             std::int64_t key_tile) const;

  /// Share of all pairs of tiles, over all batches and heads, that attend to each other.
  [[nodiscard]] double kept_share() const;

private:
  [[nodiscard]] bool is_text(std::int64_t query_tile, std::int64_t key_tile) const noexcept;

  const PatternInput* input_;
  std::int64_t batches_ = 1, heads_ = 1;
  std::optional<problem::Tiling> queries_, keys_;
  std::int64_t query_tiles_ = 1, key_tiles_ = 1;
};

} // namespace tilewright::tools
