// Which items a thread block computes, one after the other. Loaders and consumers walk through the same list.
#pragma once

#include "kernels/mapped_attention_parameters.cuh"
#include "patterns/geometry.cuh"

namespace tilewright {

/// The items of one cluster. Numbers count the text's items of all heads first, then the video's, head by head: what
/// runs at the same time shares keys. A text item takes as long as text_rounds video items, so the clusters that get
/// one text item more than the others sit out as many rounds of the video: all end at about the same time.
///
/// Tile, block_rows: of the rows that consumers own. merged: a block for each of `consumers`; else all work on one.
template <class Tile, int block_rows, bool merged, int consumers, int cluster_size> class WorkItems {
public:
  TILEWRIGHT_DEVICE explicit WorkItems(const WorkParameters& work) : work_(work), item_(cluster()) {
    if (!text()) {
      begin_video();
    }
  }

  TILEWRIGHT_DEVICE bool done() const { return item_ >= text_items() + work_.heads * work_.video_items; }

  TILEWRIGHT_DEVICE void advance() {
    if (text()) {
      item_ += clusters();
      if (!text()) {
        begin_video();
      }
    } else {
      ++round_;
      find_item();
    }
  }

  /// The number of a consumer's block, counted within a head first; -1: there is none for this consumer. grid: of the
  /// owned rows' tiles, in_head: blocks of a head.
  TILEWRIGHT_DEVICE int block(const TokenGrid& grid, int in_head, int consumer) const {
    const int number = text() ? item_ : item_ - text_items();
    const int per_head = text() ? work_.text_items : work_.video_items;
    const int first = text() ? work_.video_blocks : 0;
    const int end = text() ? in_head : work_.video_blocks;
    const int head = number / per_head, within = number % per_head;
    if constexpr (merged) {
      const int block = first + within * consumers + consumer;
      return block >= end ? -1 : head * in_head + (text() ? block : neighbours_first(grid, block));
    } else {
      return head * in_head + first + within * cluster_size + rank();
    }
  }

private:
  static TILEWRIGHT_DEVICE int rank() { return cluster_size == 1 ? 0 : block_index() % cluster_size; }
  static TILEWRIGHT_DEVICE int cluster() { return block_index() / cluster_size; }
  static TILEWRIGHT_DEVICE int clusters() { return grid_size() / cluster_size; }

  TILEWRIGHT_DEVICE int text_items() const { return config::text ? work_.heads * work_.text_items : 0; }
  TILEWRIGHT_DEVICE bool text() const { return config::text && item_ < text_items(); }
  TILEWRIGHT_DEVICE int late_clusters() const { return text_items() % clusters(); }
  TILEWRIGHT_DEVICE int late_rounds() const { return late_clusters() == 0 ? 0 : work_.text_rounds; }

  TILEWRIGHT_DEVICE void begin_video() {
    round_ = cluster() < late_clusters() ? late_rounds() : 0;
    find_item();
  }

  /// Each round is dealt with an offset of one more: where every other item is idle (a clipped tile's second half),
  /// and the number of clusters is even, half of the clusters would otherwise get all of these.
  TILEWRIGHT_DEVICE void find_item() {
    const int late = late_rounds();
    const int early_items = late * (clusters() - late_clusters());
    const int round = round_ - late;
    item_ = text_items() + (round < 0 ? round_ * (clusters() - late_clusters()) + cluster() - late_clusters()
                                      : early_items + round * clusters() + (cluster() + round) % clusters());
  }

  /// Neighbours share much of their lists, most of all along t: so consumers get blocks in an order in which t
  /// runs fastest, to and fro, as w does behind it.
  static TILEWRIGHT_DEVICE int neighbours_first(const TokenGrid& grid, int block) {
    constexpr int blocks_per_tile = Tile::tokens / block_rows;
    const int tile = block / blocks_per_tile, column = tile / grid.tiles_t, h = column / grid.tiles_w;
    const auto to_and_fro = [](int line, int place, int places) { return line % 2 == 0 ? place : places - 1 - place; };
    const int t = to_and_fro(column, tile % grid.tiles_t, grid.tiles_t);
    const int w = to_and_fro(h, column % grid.tiles_w, grid.tiles_w);
    return ((t * grid.tiles_h + h) * grid.tiles_w + w) * blocks_per_tile + block % blocks_per_tile;
  }

  const WorkParameters& work_;
  int item_;      // text items of all heads, then video items
  int round_ = 0; // of the video
};

// Patterns where a list may be empty, of either side.
template <class Parameters> constexpr bool lists_may_be_empty = false;
template <> constexpr bool lists_may_be_empty<BlockListParameters> = true;

} // namespace tilewright
