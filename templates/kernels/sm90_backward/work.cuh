// Which items a thread block computes, one after the other: sm90/work.cuh for rows of either side.
#pragma once

#include "kernels/sm90_backward/shared_memory.cuh"

namespace tilewright {

/// Items count the text's blocks of all heads first, then the video's, head by head. A text item takes as long as
/// text_rounds video items, so thread blocks that get one text item more than others sit out as many rounds.
class WorkList {
public:
  TILEWRIGHT_DEVICE explicit WorkList(const KernelArguments& arguments)
      : arguments_(arguments), work_(arguments.work), item_(block_index()) {
    if (!text()) {
      begin_video();
    }
  }

  TILEWRIGHT_DEVICE bool done() const { return item_ >= text_items() + work_.heads * work_.video_items; }

  TILEWRIGHT_DEVICE void advance() {
    if (text()) {
      item_ += grid_size();
      if (!text()) {
        begin_video();
      }
    } else {
      ++round_;
      find_item();
    }
  }

  /// The number of a consumer's block, as own_block counts them; -1: there is none for this consumer.
  TILEWRIGHT_DEVICE int block(int consumer) const {
    const int number = text() ? item_ : item_ - text_items();
    const int per_head = text() ? work_.text_items : work_.video_items;
    const int first = text() ? work_.video_blocks : 0;
    const int in_head = own_blocks(arguments_);
    const int head = number / per_head, within = number % per_head;
    if constexpr (merged) {
      const int block = first + within * config::consumers + consumer;
      const int end = text() ? in_head : work_.video_blocks;
      return block >= end ? -1 : head * in_head + (text() ? block : time_first(own_grid(arguments_), block));
    } else {
      return head * in_head + first + within;
    }
  }

private:
  TILEWRIGHT_DEVICE int text_items() const { return config::text ? work_.heads * work_.text_items : 0; }
  TILEWRIGHT_DEVICE bool text() const { return config::text && item_ < text_items(); }
  TILEWRIGHT_DEVICE int late_blocks() const { return text_items() % grid_size(); }
  TILEWRIGHT_DEVICE int late_rounds() const { return late_blocks() == 0 ? 0 : work_.text_rounds; }

  TILEWRIGHT_DEVICE void begin_video() {
    round_ = block_index() < late_blocks() ? late_rounds() : 0;
    find_item();
  }

  TILEWRIGHT_DEVICE void find_item() {
    const int late = late_rounds(), early = grid_size() - late_blocks();
    item_ = text_items() + (round_ < late ? round_ * early + block_index() - late_blocks()
                                          : late * early + (round_ - late) * grid_size() + block_index());
  }

  /// Neighbours along t share most of their lists, so consumers get blocks in an order in which t runs fastest.
  static TILEWRIGHT_DEVICE int time_first(const TokenGrid& grid, int block) {
    constexpr int blocks_per_tile = OwnTile::tokens / block_owned;
    const int tile = block / blocks_per_tile, plane = tile / grid.tiles_t;
    const int t = tile % grid.tiles_t, w = plane % grid.tiles_w, h = plane / grid.tiles_w;
    return ((t * grid.tiles_h + h) * grid.tiles_w + w) * blocks_per_tile + block % blocks_per_tile;
  }

  const KernelArguments& arguments_;
  const WorkParameters& work_;
  int item_;      // text items of all heads, then video items
  int round_ = 0; // of the video
};

// Patterns where no list of either side is empty, and where all rows are valid.
template <class Parameters> constexpr bool lists_may_be_empty = false;
template <> constexpr bool lists_may_be_empty<BlockListParameters> = true;
constexpr bool always_has_work = !lists_may_be_empty<PatternParameters> && !TileRows<OwnTile>::may_be_partial;

/// Whether a block has valid rows, and meets any: else consumers never hear of it.
TILEWRIGHT_DEVICE bool has_work(const KernelArguments& arguments, const OwnBlock& own) {
  return always_has_work || (own.first_row < own.valid_end && !walk_of(arguments, own).done());
}

} // namespace tilewright
