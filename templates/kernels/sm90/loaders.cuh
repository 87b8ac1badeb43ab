// The loading warps: one brings the queries, one the keys and values. All lanes walk along; one of them issues the
// copies.
#pragma once

#include "kernels/sm90/boxes.cuh"
#include "kernels/sm90/work.cuh"

namespace tilewright {

constexpr uint32_t whole_cluster = (1u << config::cluster) - 1;

TILEWRIGHT_DEVICE void load_query(const KernelArguments& arguments, const QueryBlock& query, int row, QueryShared tile,
                                  SharedAddress barrier) {
  const HeadBoxes boxes(arguments.video.query, arguments.text.query, arguments.query_heads, query.batch, query.head);
  const BoxOrigin origin = boxes.origin(query.text, query.position, query.rows, query.first_row + row);
#pragma unroll
  for (int panel = 0; panel < panels; ++panel) {
    copy_box_to_shared(tile.base + panel * QueryShared::panel_bytes, boxes.map(query.text),
                       shifted(origin, panel * QueryShared::panel_columns), barrier);
  }
}

/// Brings every consumer's query rows, and their query block's number, as soon as the consumer has handed back the
/// place of the last ones.
TILEWRIGHT_DEVICE void load_queries(const KernelArguments& arguments, const Shared& shared) {
  uint32_t parities = 0; // of each consumer's phase, a bit each
  const auto wait_for_place = [&](int consumer) {
    wait(shared.query_empty(consumer), (parities >> consumer & 1) ^ 1);
    parities ^= 1u << consumer;
  };
  for (WorkList work(arguments.work); !work.done(); work.advance()) {
#pragma unroll 1
    for (int consumer = 0; consumer < config::consumers; ++consumer) {
      const int index = work.query_block(arguments.call.attention, consumer);
      if (index < 0) {
        continue;
      }
      const QueryBlock query = pattern_query_block(arguments.call, index);
      if (!has_work(arguments, query)) {
        continue;
      }
      wait_for_place(consumer);
      if (elect_lane()) {
        store_shared(shared.query_note(consumer), static_cast<uint32_t>(index));
        arrive_expecting(shared.query_full(consumer), QueryShared::bytes);
        load_query(arguments, query, merged ? 0 : consumer * consumer_rows, shared.query(consumer),
                   shared.query_full(consumer));
      }
    }
  }
#pragma unroll 1
  for (int consumer = 0; consumer < config::consumers; ++consumer) {
    wait_for_place(consumer);
    if (elect_lane()) {
      store_shared(shared.query_note(consumer), static_cast<uint32_t>(no_more_queries));
      arrive(shared.query_full(consumer));
    }
  }
}

/// One step of a walk through the keys, all that its copies need.
struct KeyStep {
  bool text, masked;
  TileCoordinate tile;
  TileRows<KeyTile> rows;
  int first_row;

  TILEWRIGHT_DEVICE explicit KeyStep(const KeyBlocks& keys)
      : text(keys.text()), masked(!keys.rows().contains_all(keys.first_row(), config::block_k)), tile(keys.tile()),
        rows(keys.rows()), first_row(keys.first_row()) {}

  /// The step that `lane` has, in all lanes.
  TILEWRIGHT_DEVICE void take_from(int lane) {
    text = config::text && broadcast(text, lane) != 0;
    masked = broadcast(masked, lane) != 0;
    first_row = broadcast(first_row, lane);
    tile = {broadcast(tile.t, lane), broadcast(tile.h, lane), broadcast(tile.w, lane)};
    if constexpr (linear_map) {
      rows.first_token = broadcast(rows.first_token, lane);
    }
    if constexpr (TileRows<KeyTile>::may_be_partial) {
      rows.extent_t = broadcast(rows.extent_t, lane);
      rows.extent_h = broadcast(rows.extent_h, lane);
      rows.extent_w = broadcast(rows.extent_w, lane);
      rows.end = broadcast(rows.end, lane);
    }
  }
};

/// Leaves beside a stage what its consumers have to know. All lanes; before the copies' arrival, by the same lane.
TILEWRIGHT_DEVICE void write_note(SharedAddress note, const KeyStep& step, bool last) {
  if (TileRows<KeyTile>::may_be_partial && step.masked) {
#pragma unroll
    for (int word = 0; word < mask_words; ++word) {
      const uint32_t bits = vote(step.rows.contains(step.first_row + word * 32 + lane_index()));
      if (elect_lane()) {
        store_shared(note + 4 + word * 4, bits);
      }
    }
  }
  if (elect_lane()) {
    store_shared(note, (last ? note_last : 0u) | (step.masked ? note_masked : 0u));
  }
}

/// Waits until the stage's keys may be overwritten, and its note: where values are masked too, it is needed as long as
/// they.
TILEWRIGHT_DEVICE void wait_for_keys_to_leave(const Shared& shared, const RingPlace& ring) {
  wait(shared.key_empty(ring.stage), ring.parity ^ 1);
  if constexpr (values_may_be_padding) {
    wait(shared.value_empty(ring.stage), ring.parity ^ 1);
  }
}

/// The step's keys or values: this thread block's share of their rows, to all thread blocks of the cluster. One thread.
TILEWRIGHT_DEVICE void load_block(KeyShared tile, const HeadBoxes& boxes, const KeyStep& step, SharedAddress barrier) {
  constexpr int rows = config::block_k / config::cluster;
  const int rank = config::cluster == 1 ? 0 : block_index() % config::cluster;
  const BoxOrigin origin = boxes.origin(step.text, step.tile, step.rows, step.first_row + rank * rows);
  arrive_expecting(barrier, KeyShared::bytes);
#pragma unroll
  for (int panel = 0; panel < panels; ++panel) {
    const SharedAddress place = tile.base + panel * KeyShared::panel_bytes + rank * rows * KeyShared::row_bytes;
    const BoxOrigin panel_origin = shifted(origin, panel * KeyShared::panel_columns);
    if constexpr (config::cluster == 1) {
      copy_box_to_shared(place, boxes.map(step.text), panel_origin, barrier);
    } else {
      copy_box_to_cluster(place, boxes.map(step.text), panel_origin, barrier, whole_cluster);
    }
  }
}

TILEWRIGHT_DEVICE HeadBoxes key_boxes(const KernelArguments& arguments, const QueryBlock& query) {
  return {arguments.video.key, arguments.text.key, arguments.key_heads, query.batch,
          query.head / arguments.call.attention.heads_per_kv_head};
}
TILEWRIGHT_DEVICE HeadBoxes value_boxes(const KernelArguments& arguments, const QueryBlock& query) {
  return {arguments.video.value, arguments.text.value, arguments.value_heads, query.batch,
          query.head / arguments.call.attention.heads_per_kv_head};
}

/// Brings the keys and values of the one list that all consumers walk through.
TILEWRIGHT_DEVICE void load_keys(const KernelArguments& arguments, const Shared& shared) {
  RingPlace ring;
  for (WorkList work(arguments.work); !work.done(); work.advance()) {
    const QueryBlock query = pattern_query_block(arguments.call, work.query_block(arguments.call.attention, 0));
    if (!has_work(arguments, query)) {
      continue;
    }
    const HeadBoxes key = key_boxes(arguments, query), value = value_boxes(arguments, query);
    KeyBlocks keys(arguments.call, query);
    while (!keys.done()) {
      const KeyStep step(keys);
      keys.advance();
      wait_for_keys_to_leave(shared, ring);
      write_note(shared.note(ring.stage), step, keys.done());
      if (elect_lane()) {
        load_block(shared.key(ring.stage), key, step, shared.key_full(ring.stage));
      }
      wait(shared.value_empty(ring.stage), ring.parity ^ 1);
      if (elect_lane()) {
        load_block(shared.value(ring.stage), value, step, shared.value_full(ring.stage));
      }
      ring.advance();
    }
  }
}

/// The place of a step in the order of all steps, for walks through the same keys.
TILEWRIGHT_DEVICE int order_of(const KeyBlocks& keys, const TokenGrid& grid) {
  const TileCoordinate tile = keys.tile();
  const int number = keys.text() ? grid.tiles_t * grid.tiles_h * grid.tiles_w
                                 : (tile.t * grid.tiles_h + tile.h) * grid.tiles_w + tile.w;
  return number * KeyTile::tokens + keys.first_row();
}

/// Brings the keys and values of the consumers' lists, each block once: lane i walks through consumer i's list, and
/// what comes first in any of them is loaded next, for all its owners. Who does not need it does not touch it, so its
/// release is made here. The queue is written after both waits: then the stage's phases cannot be mistaken for older
/// ones.
TILEWRIGHT_DEVICE void load_merged_keys(const KernelArguments& arguments, const Shared& shared) {
  const int lane = lane_index();
  RingPlace ring, queue;
  for (WorkList work(arguments.work); !work.done(); work.advance()) {
    const int index = work.query_block(arguments.call.attention, minimum(lane, config::consumers - 1));
    const QueryBlock query = pattern_query_block(arguments.call, maximum(index, 0));
    const bool walks = lane < config::consumers && index >= 0 && has_work(arguments, query);
    const QueryBlock first = pattern_query_block(arguments.call, work.query_block(arguments.call.attention, 0));
    const HeadBoxes key = key_boxes(arguments, first), value = value_boxes(arguments, first);
    KeyBlocks keys(arguments.call, query);
    while (true) {
      const int order = walks && !keys.done() ? order_of(keys, arguments.call.attention.key_grid) : no_limit;
      const int next = minimum_of_lanes(order);
      if (next == no_limit) {
        break;
      }
      const bool mine = order == next;
      const uint32_t owners = vote(mine);
      KeyStep step(keys);
      step.take_from(lowest_bit(owners));
      if (mine) {
        keys.advance();
      }
      const int others = (config::consumers - count_bits(owners)) * Shared::releases_per_consumer;

      wait_for_keys_to_leave(shared, ring);
      write_note(shared.note(ring.stage), step, false);
      if (elect_lane()) {
        if (others > 0) {
          arrive(shared.key_empty(ring.stage), others);
        }
        load_block(shared.key(ring.stage), key, step, shared.key_full(ring.stage));
      }
      wait(shared.value_empty(ring.stage), ring.parity ^ 1);
      if (elect_lane()) {
        if (others > 0) {
          arrive(shared.value_empty(ring.stage), others);
        }
        load_block(shared.value(ring.stage), value, step, shared.value_full(ring.stage));
      }
      if (mine) {
        store_shared(shared.queue_entry(lane, queue.stage),
                     (keys.done() ? note_last : 0u) | (step.masked ? note_masked : 0u) |
                         static_cast<uint32_t>(ring.stage) << 8 | ring.parity << 16);
        arrive(shared.queue_full(lane, queue.stage));
        queue.advance();
      }
      ring.advance();
    }
  }
}

} // namespace tilewright
