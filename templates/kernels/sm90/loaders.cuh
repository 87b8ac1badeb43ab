// The loading warps: for queries, keys and values. All lanes walk along; one of them issues the copies.
#pragma once

#include "kernels/sm90/boxes.cuh"
#include "kernels/sm90/work.cuh"

namespace tilewright {

// A walk through tiles is arithmetic: with a warp each for keys and values a ragged canvas takes 5 % fewer cycles. A
// walk through lists reads them: there one warp for both takes 9 % fewer (blocks of 128, random). Measured on an H200.
constexpr bool values_have_a_loader = !merged && !lists_may_be_empty<PatternParameters>;

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

TILEWRIGHT_DEVICE void bring_keys(const Shared& shared, RingPlace& ring, const HeadBoxes& boxes, const KeyStep& step,
                                  bool last) {
  wait_for_keys_to_leave(shared, ring);
  write_key_note(shared.note(ring.stage), step, last);
  if (elect_lane()) {
    load_block(shared.key(ring.stage), boxes, step, shared.key_full(ring.stage));
  }
  ring.advance();
}

TILEWRIGHT_DEVICE void bring_values(const Shared& shared, RingPlace& ring, const TensorMap& map,
                                    const BoxOrigin& origin) {
  wait(shared.value_empty(ring.stage), ring.parity ^ 1);
  if (elect_lane()) {
    load_box(shared.value(ring.stage), map, origin, shared.value_full(ring.stage));
  }
  ring.advance();
}

TILEWRIGHT_DEVICE HeadBoxes key_boxes(const KernelArguments& arguments, const QueryBlock& query) {
  return {arguments.video.key, arguments.text.key, arguments.key_heads, query.batch,
          query.head / arguments.call.attention.heads_per_kv_head};
}
TILEWRIGHT_DEVICE HeadBoxes value_boxes(const KernelArguments& arguments, const QueryBlock& query) {
  return {arguments.video.value, arguments.text.value, arguments.value_heads, query.batch,
          query.head / arguments.call.attention.heads_per_kv_head};
}

/// Walks through the list of every item, the one that all consumers walk through. begin(query) returns what is then
/// called for each of its steps: (step, whether it is the last).
template <class Begin> TILEWRIGHT_DEVICE void for_each_step(const KernelArguments& arguments, Begin begin) {
  for (WorkList work(arguments.work); !work.done(); work.advance()) {
    const QueryBlock query = pattern_query_block(arguments.call, work.query_block(arguments.call.attention, 0));
    if (!has_work(arguments, query)) {
      continue;
    }
    auto bring = begin(query);
    KeyBlocks keys(arguments.call, query);
    while (!keys.done()) {
      const KeyStep step(keys);
      keys.advance();
      bring(step, keys.done());
    }
  }
}

TILEWRIGHT_DEVICE void load_keys(const KernelArguments& arguments, const Shared& shared) {
  RingPlace ring;
  for_each_step(arguments, [&](const QueryBlock& query) {
    return [&, boxes = key_boxes(arguments, query)](const KeyStep& step, bool last) {
      bring_keys(shared, ring, boxes, step, last);
    };
  });
}

TILEWRIGHT_DEVICE void load_values(const KernelArguments& arguments, const Shared& shared) {
  RingPlace ring;
  for_each_step(arguments, [&](const QueryBlock& query) {
    return [&, boxes = value_boxes(arguments, query)](const KeyStep& step, bool) {
      bring_values(shared, ring, boxes.map(step.text), block_origin(boxes, step));
    };
  });
}

/// One warp for both. A block's values are asked for after the next block's keys: keys are needed first, and leave
/// their stage first.
TILEWRIGHT_DEVICE void load_keys_and_values(const KernelArguments& arguments, const Shared& shared) {
  constexpr bool values_lag = config::stages > 1; // the next keys go to another stage, so they need not wait for these
  RingPlace key_ring, value_ring;
  const TensorMap* map = nullptr; // of the values that are still to come
  BoxOrigin origin;
  for_each_step(arguments, [&](const QueryBlock& query) {
    return
        [&, key = key_boxes(arguments, query), value = value_boxes(arguments, query)](const KeyStep& step, bool last) {
          bring_keys(shared, key_ring, key, step, last);
          if (map != nullptr) {
            bring_values(shared, value_ring, *map, origin);
          }
          map = &value.map(step.text);
          origin = block_origin(value, step);
          if (last || !values_lag) {
            bring_values(shared, value_ring, *map, origin);
            map = nullptr;
          }
        };
  });
}

} // namespace tilewright
