#include "block_map.hpp"

#include <algorithm>

namespace tilewright::tools {

BlockMap::BlockMap(const PatternInput& input) : input_(&input), heads_(input.heads) {
  bool has_text = false;
  if (const auto* sliding = std::get_if<SlidingTile>(&input.pattern)) {
    queries_.emplace(sliding->canvas, sliding->tile);
    keys_ = queries_;
    has_text = sliding->text_length.has_value();
  } else if (const auto* blocks = std::get_if<BlockList>(&input.pattern)) {
    queries_.emplace(blocks->canvas, blocks->tile);
    keys_.emplace(blocks->key_canvas.value_or(blocks->canvas), blocks->key_tile.value_or(blocks->tile));
    batches_ = input.lists.batch;
    heads_ = input.lists.heads == 1 ? input.heads : input.lists.heads;
  }
  if (queries_) {
    query_tiles_ = queries_->tile_count() + (has_text ? 1 : 0);
    key_tiles_ = keys_->tile_count() + (has_text ? 1 : 0);
  }
}

bool BlockMap::is_text(std::int64_t query_tile, std::int64_t key_tile) const noexcept {
  return query_tile >= queries_->tile_count() || key_tile >= keys_->tile_count();
}

bool BlockMap::attends(std::int64_t batch, std::int64_t head, std::int64_t query_tile, std::int64_t key_tile) const {
  if (const auto* sliding = std::get_if<SlidingTile>(&input_->pattern)) {
    const Window& window = sliding->windows[sliding->windows.size() == 1 ? 0 : static_cast<std::size_t>(head)];
    return is_text(query_tile, key_tile) || problem::attends(*queries_, window, query_tile, key_tile);
  }
  if (std::holds_alternative<BlockList>(input_->pattern)) {
    const auto list = input_->lists.list(batch, head, query_tile);
    return std::binary_search(list.begin(), list.end(), static_cast<std::int32_t>(key_tile));
  }
  return true;
}

double BlockMap::kept_share() const {
  std::int64_t kept = 0;
  for (std::int64_t batch = 0; batch < batches_; ++batch)
    for (std::int64_t head = 0; head < heads_; ++head)
      for (std::int64_t query = 0; query < query_tiles_; ++query)
        for (std::int64_t key = 0; key < key_tiles_; ++key)
          kept += attends(batch, head, query, key) ? 1 : 0;
  return static_cast<double>(kept) / static_cast<double>(batches_ * heads_ * query_tiles_ * key_tiles_);
}

} // namespace tilewright::tools
