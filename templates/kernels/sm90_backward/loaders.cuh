// The loading warps: one brings the rows that consumers own, one those that they walk through. All lanes walk along;
// one of them issues the copies.
#pragma once

#include "kernels/sm90/boxes.cuh"
#include "kernels/sm90_backward/work.cuh"

namespace tilewright {

TILEWRIGHT_DEVICE void load_rows(RowsShared tile, const HeadBoxes& boxes, bool text, const BoxOrigin& origin,
                                 SharedAddress barrier) {
#pragma unroll
  for (int panel = 0; panel < panels; ++panel) {
    copy_box_to_shared(tile.base + panel * RowsShared::panel_bytes, boxes.map(text),
                       shifted(origin, panel * RowsShared::panel_columns), barrier);
  }
}

/// Brings every consumer's own rows.
TILEWRIGHT_DEVICE void load_own_rows(const KernelArguments& arguments, const Shared& shared) {
  OwnPlaces places(shared);
  for (WorkList work(arguments); !work.done(); work.advance()) {
#pragma unroll 1
    for (int consumer = 0; consumer < config::consumers; ++consumer) {
      const int index = work.block(consumer);
      if (index < 0) {
        continue;
      }
      const OwnBlock own = own_block(arguments, index);
      if (!has_work(arguments, own)) {
        continue;
      }
      places.fill(consumer, index, 2 * RowsShared::bytes, [&](SharedAddress full) {
        const int row = own.first_row + (merged ? 0 : consumer * consumer_rows);
#pragma unroll
        for (int which = 0; which < 2; ++which) {
          const HeadBoxes boxes(arguments.video.own[which], arguments.text.own[which], arguments.own_heads[which],
                                own.batch, own_head(own));
          load_rows(shared.own(consumer, which), boxes, own.text, boxes.origin(own.text, own.position, own.rows, row),
                    full);
        }
      });
    }
  }
  places.close();
}

/// One step of a walk, all that its copies need.
struct Step {
  bool text, masked;
  TileCoordinate tile;
  TileRows<WalkedTile> rows;
  int first_row, head, statistics_row;

  TILEWRIGHT_DEVICE Step(const KernelArguments& arguments, const OwnBlock& own, const Walk& walk)
      : text(walk.text()), masked(!walk.rows().contains_all(walk.first_row(), step_rows)), tile(walk.tile()),
        rows(walk.rows()), first_row(walk.first_row()), head(walked_head(arguments, own, walk)),
        statistics_row(walked_statistics_row(walk)) {}

  /// The step that `lane` has, in all lanes.
  TILEWRIGHT_DEVICE void take_from(int lane) {
    text = config::text && broadcast(text, lane) != 0;
    masked = broadcast(masked, lane) != 0;
    first_row = broadcast(first_row, lane);
    head = broadcast(head, lane);
    statistics_row = broadcast(statistics_row, lane);
    tile = {broadcast(tile.t, lane), broadcast(tile.h, lane), broadcast(tile.w, lane)};
    if constexpr (linear_map) {
      rows.first_token = broadcast(rows.first_token, lane);
    }
    if constexpr (TileRows<WalkedTile>::may_be_partial) {
      rows.extent_t = broadcast(rows.extent_t, lane);
      rows.extent_h = broadcast(rows.extent_h, lane);
      rows.extent_w = broadcast(rows.extent_w, lane);
      rows.end = broadcast(rows.end, lane);
    }
  }
};

/// Queries that do not exist need no mask (their exponent is -inf), unless padding has to be zeroed.
constexpr bool masks_needed = TileRows<WalkedTile>::may_be_partial && (!walked_statistics || rows_may_be_padding);

/// Fills a stage that is empty. All lanes. others: consumers that do not need it, for whom it is handed back at once.
TILEWRIGHT_DEVICE void load_step(const KernelArguments& arguments, const Shared& shared, int stage, int batch,
                                 const Step& step, bool last, int others) {
  const SharedAddress barrier = shared.full(stage);
  write_note<step_rows, masks_needed>(shared.note(stage), step, last);
  if (elect_lane()) {
    if (others > 0) {
      arrive(shared.empty(stage), others * warps_per_warpgroup);
    }
    arrive_expecting(barrier, 2 * RowsShared::bytes + statistics_bytes);
#pragma unroll
    for (int which = 0; which < 2; ++which) {
      const HeadBoxes boxes(arguments.video.walked[which], arguments.text.walked[which], arguments.walked_heads[which],
                            batch, step.head);
      load_rows(shared.walked(stage, which), boxes, step.text,
                boxes.origin(step.text, step.tile, step.rows, step.first_row), barrier);
    }
    if constexpr (walked_statistics) {
      const RowStatistics& statistics = arguments.backward.backward.statistics;
      const int64_t at = batch * statistics.batch_stride + step.head * statistics.head_stride + step.statistics_row;
      copy_bytes_to_shared(shared.exponents(stage), statistics.exponents + at, step_rows * 4, barrier);
      copy_bytes_to_shared(shared.deltas(stage), statistics.deltas + at, step_rows * 4, barrier);
    }
  }
}

/// Brings the one list that all consumers walk through.
TILEWRIGHT_DEVICE void load_walked_rows(const KernelArguments& arguments, const Shared& shared) {
  RingPlace ring;
  for (WorkList work(arguments); !work.done(); work.advance()) {
    const OwnBlock own = own_block(arguments, work.block(0));
    if (!has_work(arguments, own)) {
      continue;
    }
    Walk walk = walk_of(arguments, own);
    while (!walk.done()) {
      const Step step(arguments, own, walk);
      walk.advance();
      wait(shared.empty(ring.stage), ring.parity ^ 1);
      load_step(arguments, shared, ring.stage, own.batch, step, walk.done(), 0);
      ring.advance();
    }
  }
}

/// The place of a step in the order of all steps, for walks of one item.
TILEWRIGHT_DEVICE int order_of(const Step& step, const TokenGrid& grid) {
  constexpr int steps_per_tile = WalkedTile::tokens / step_rows;
  const int tiles = grid.tiles_t * grid.tiles_h * grid.tiles_w;
  const int number = step.text ? tiles : (step.tile.t * grid.tiles_h + step.tile.h) * grid.tiles_w + step.tile.w;
  return number * steps_per_tile + step.first_row / step_rows;
}

/// Brings the consumers' lists, each step once: as sm90/loaders.cuh does for the keys of the forward kernel. Heads of
/// one group come one after the other in every list.
TILEWRIGHT_DEVICE void load_merged_rows(const KernelArguments& arguments, const Shared& shared) {
  const int lane = lane_index();
  RingPlace ring, queue;
  for (WorkList work(arguments); !work.done(); work.advance()) {
    const int index = work.block(minimum(lane, config::consumers - 1));
    const OwnBlock own = own_block(arguments, maximum(index, 0));
    const bool walks = lane < config::consumers && index >= 0 && has_work(arguments, own);
    const int batch = broadcast(own.batch, 0);
    Walk walk = walk_of(arguments, own);
    while (true) {
      Step step(arguments, own, walk);
      const bool here = walks && !walk.done();
      const int head = minimum_of_lanes(here ? step.head : no_limit);
      if (head == no_limit) {
        break;
      }
      const int order = here && step.head == head ? order_of(step, walked_grid(arguments)) : no_limit;
      const bool mine = order == minimum_of_lanes(order) && order != no_limit;
      const uint32_t owners = vote(mine);
      step.take_from(lowest_bit(owners));
      if (mine) {
        walk.advance();
      }
      wait(shared.empty(ring.stage), ring.parity ^ 1);
      load_step(arguments, shared, ring.stage, batch, step, false, config::consumers - count_bits(owners));
      if (mine) {
        store_shared(shared.queue_entry(lane, queue.stage), queue_entry(note_flags(walk.done(), step.masked), ring));
        arrive(shared.queue_full(lane, queue.stage));
        queue.advance();
      }
      ring.advance();
    }
  }
}

} // namespace tilewright
