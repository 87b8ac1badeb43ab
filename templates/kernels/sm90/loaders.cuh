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

/// Brings every consumer's query rows.
TILEWRIGHT_DEVICE void load_queries(const KernelArguments& arguments, const Shared& shared) {
  OwnPlaces places(shared);
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
      places.fill(consumer, index, QueryShared::bytes, [&](SharedAddress full) {
        load_query(arguments, query, merged ? 0 : consumer * consumer_rows, shared.query(consumer), full);
      });
    }
  }
  places.close();
}

/// One step of a walk through the keys, all that its copies need.
struct KeyStep {
  bool text, masked;
  TileCoordinate tile;
  TileRows<KeyTile> rows;
  int first_row;

  TILEWRIGHT_DEVICE KeyStep(bool text_, TileCoordinate tile_, const TileRows<KeyTile>& rows_, int first_row_)
      : text(text_), masked(!rows_.contains_all(first_row_, config::block_k)), tile(tile_), rows(rows_),
        first_row(first_row_) {}
  TILEWRIGHT_DEVICE explicit KeyStep(const KeyBlocks& keys)
      : KeyStep(keys.text(), keys.tile(), keys.rows(), keys.first_row()) {}
};

TILEWRIGHT_DEVICE void write_key_note(SharedAddress note, const KeyStep& step, bool last) {
  write_note<config::block_k, TileRows<KeyTile>::may_be_partial>(note, step, last);
}

/// Waits until the stage's keys may be overwritten, and its note: where values are masked too, it is needed as long as
/// they.
TILEWRIGHT_DEVICE void wait_for_keys_to_leave(const Shared& shared, const RingPlace& ring) {
  wait(shared.key_empty(ring.stage), ring.parity ^ 1);
  if constexpr (values_may_be_padding) {
    wait(shared.value_empty(ring.stage), ring.parity ^ 1);
  }
}

/// The box at this origin, for this thread block and the cluster's others: this one's share of its rows. One thread.
TILEWRIGHT_DEVICE void load_box(KeyShared tile, const TensorMap& map, const BoxOrigin& origin, SharedAddress barrier) {
  constexpr int rows = config::block_k / config::cluster;
  const int rank = config::cluster == 1 ? 0 : block_index() % config::cluster;
  arrive_expecting(barrier, KeyShared::bytes);
#pragma unroll
  for (int panel = 0; panel < panels; ++panel) {
    const SharedAddress place = tile.base + panel * KeyShared::panel_bytes + rank * rows * KeyShared::row_bytes;
    const BoxOrigin panel_origin = shifted(origin, panel * KeyShared::panel_columns);
    if constexpr (config::cluster == 1) {
      copy_box_to_shared(place, map, panel_origin, barrier);
    } else {
      copy_box_to_cluster(place, map, panel_origin, barrier, whole_cluster);
    }
  }
}

/// Where this thread block's share of the step's keys or values stands.
TILEWRIGHT_DEVICE BoxOrigin block_origin(const HeadBoxes& boxes, const KeyStep& step) {
  constexpr int rows = config::block_k / config::cluster;
  const int rank = config::cluster == 1 ? 0 : block_index() % config::cluster;
  return boxes.origin(step.text, step.tile, step.rows, step.first_row + rank * rows);
}

/// The step's keys or values.
TILEWRIGHT_DEVICE void load_block(KeyShared tile, const HeadBoxes& boxes, const KeyStep& step, SharedAddress barrier) {
  load_box(tile, boxes.map(step.text), block_origin(boxes, step), barrier);
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
///
/// A block's values are asked for after the next block's keys: keys are needed first, and leave their stage first.
TILEWRIGHT_DEVICE void load_keys(const KernelArguments& arguments, const Shared& shared) {
  constexpr bool values_lag = config::stages > 1; // the next keys go to another stage, so they need not wait for these
  RingPlace key_ring, value_ring;
  for (WorkList work(arguments.work); !work.done(); work.advance()) {
    const QueryBlock query = pattern_query_block(arguments.call, work.query_block(arguments.call.attention, 0));
    if (!has_work(arguments, query)) {
      continue;
    }
    const HeadBoxes key = key_boxes(arguments, query), value = value_boxes(arguments, query);
    const auto bring_values = [&](bool text, const BoxOrigin& origin) {
      wait(shared.value_empty(value_ring.stage), value_ring.parity ^ 1);
      if (elect_lane()) {
        load_box(shared.value(value_ring.stage), value.map(text), origin, shared.value_full(value_ring.stage));
      }
      value_ring.advance();
    };
    KeyBlocks keys(arguments.call, query);
    bool first = true, last_text = false;
    BoxOrigin last_values = {};
    while (!keys.done()) {
      const KeyStep step(keys);
      keys.advance();
      wait_for_keys_to_leave(shared, key_ring);
      write_key_note(shared.note(key_ring.stage), step, keys.done());
      if (elect_lane()) {
        load_block(shared.key(key_ring.stage), key, step, shared.key_full(key_ring.stage));
      }
      key_ring.advance();
      if (values_lag && !first) {
        bring_values(last_text, last_values);
      }
      first = false;
      last_text = step.text;
      last_values = block_origin(value, step);
      if (!values_lag) {
        bring_values(last_text, last_values);
      }
    }
    if (values_lag) {
      bring_values(last_text, last_values);
    }
  }
}

} // namespace tilewright
