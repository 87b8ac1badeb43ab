// Consumers with a list of key tiles each: a key block that several of them need is loaded once, for all of them.
//
// One warp (list_keys) turns the lists into windows: bit maps of 1024 key tiles, one for each consumer, a word a lane.
// The loading warp walks through the union of a window's maps, which costs it a few instructions a block: walking
// through the lists themselves would keep it waiting for memory, and the consumers for it.
#pragma once

#include "kernels/sm90/loaders.cuh"

namespace tilewright {

/// A place among the window slots, and the parity of the phase that fills it.
struct WindowPlace {
  int slot = 0;
  uint32_t parity = 0;

  TILEWRIGHT_DEVICE void advance() {
    slot ^= 1;
    parity ^= slot == 0 ? 1u : 0u;
  }
};

/// This lane's word of the window that begins with tile `first`: the listed tiles from entry `next` on, which moves on
/// to the first entry that lies behind the window and has keys. All lanes.
template <class Tiles> TILEWRIGHT_DEVICE uint32_t window_of(const Tiles& tiles, int& next, int first) {
  uint32_t word = 0;
  int inside = warp_size; // entries of the last 32 that lie in the window
  while (next < tiles.count && inside == warp_size) {
    const int i = next + lane_index();
    const int number = i < tiles.count ? tiles.number(i) : no_limit;
    const bool here = number < first + window_tiles; // lists ascend: so it is in the first lanes
    const int marked = here && tiles.has_keys(number) ? number - first : -1;
    inside = count_bits(vote(here));
    for (int lane = 0; lane < inside; ++lane) {
      const int bit = broadcast(marked, lane);
      word |= bit >= 0 && bit / 32 == lane_index() ? 1u << (bit % 32) : 0u;
    }
    next += inside;
  }
  int keyless = warp_size; // a consumer is told of its last block: tiles without keys must not look like more
  while (next < tiles.count && keyless == warp_size) {
    const int i = next + lane_index();
    keyless = lowest_bit(~vote(i < tiles.count && !tiles.has_keys(tiles.number(i))));
    keyless = keyless < 0 ? warp_size : keyless;
    next += keyless;
  }
  return word;
}

/// Writes the windows of every item, at least one each.
TILEWRIGHT_DEVICE void list_keys(const KernelArguments& arguments, const Shared& shared) {
  const AttentionParameters& p = arguments.call.attention;
  WindowPlace place;
  for (WorkList work(arguments.work); !work.done(); work.advance()) {
    int next[config::consumers] = {}; // entry of each consumer's list
    uint32_t continued;
    int first = 0; // tile of the window
    do {
      wait(shared.window_empty(place.slot), place.parity ^ 1);
      continued = 0;
#pragma unroll
      for (int consumer = 0; consumer < config::consumers; ++consumer) {
        const int index = work.query_block(p, consumer);
        const QueryBlock query = pattern_query_block(arguments.call, maximum(index, 0));
        uint32_t word = 0;
        if (index >= 0 && has_work(arguments, query)) {
          const auto tiles = listed_tiles(arguments.call, query);
          word = window_of(tiles, next[consumer], first);
          continued |= next[consumer] < tiles.count ? 1u << consumer : 0u;
        }
        store_shared(shared.window_word(place.slot, consumer, lane_index()), word);
      }
      synchronize_warp();
      if (elect_lane()) {
        store_shared(shared.window_note(place.slot), continued);
        arrive(shared.window_full(place.slot));
      }
      place.advance();
      first += window_tiles;
    } while (continued != 0);
  }
}

/// Issues key blocks into the ring of stages and tells their owners, each through its queue.
///
/// A consumer holds a block's values until it has the scores of its next block. Were that one a whole ring away, the
/// loader would wait for the stage that the consumer holds, and the consumer for the loader: before it comes to that,
/// the loader issues a bubble, a block of zeros whose keys do not exist.
class MergedLoader {
public:
  TILEWRIGHT_DEVICE explicit MergedLoader(const Shared& shared) : shared_(shared) {}

  /// `ends`: those of the owners for whom it is the item's last block.
  TILEWRIGHT_DEVICE void issue(const HeadBoxes& key, const HeadBoxes& value, const KeyStep& step, uint32_t owners,
                               uint32_t ends) {
    if constexpr (config::overlap) {
      while ((overdue() & ~owners) != 0) {
        issue_bubble(key, value, overdue()); // for owners too: it would move their block a whole ring away
      }
    }
    wait_for_keys(owners);
    write_note(shared_.note(ring_.stage), step, false);
    if (elect_lane()) {
      load_block(shared_.key(ring_.stage), key, step, shared_.key_full(ring_.stage));
    }
    wait_for_values(owners);
    if (elect_lane()) {
      load_block(shared_.value(ring_.stage), value, step, shared_.value_full(ring_.stage));
    }
    tell(owners, ends, step.masked);
  }

private:
  /// Consumers that wait for their next block, and must get something at this place of the ring.
  TILEWRIGHT_DEVICE uint32_t overdue() const {
    uint32_t bits = 0;
#pragma unroll
    for (int consumer = 0; consumer < config::consumers; ++consumer) {
      if ((waiting_ >> consumer & 1) != 0 && distance_[consumer] >= config::stages - 1) {
        bits |= 1u << consumer;
      }
    }
    return bits;
  }

  TILEWRIGHT_DEVICE void issue_bubble(const HeadBoxes& key, const HeadBoxes& value, uint32_t owners) {
    // Outside every map, so zeros arrive: the values of a block that a consumer does not attend to might be infinite.
    const BoxOrigin outside{{0, -config::block_k, -config::block_k, -config::block_k, 0}};
    wait_for_keys(owners);
    if (elect_lane()) {
#pragma unroll
      for (int word = 0; word < mask_words; ++word) {
        store_shared(shared_.key_mask(ring_.stage) + word * 4, 0u);
      }
      load_box(shared_.key(ring_.stage), key.map(false), outside, shared_.key_full(ring_.stage));
    }
    wait_for_values(owners);
    if (elect_lane()) {
      load_box(shared_.value(ring_.stage), value.map(false), outside, shared_.value_full(ring_.stage));
    }
    tell(owners, 0, true);
  }

  static TILEWRIGHT_DEVICE int releases_of_others(uint32_t owners) {
    return (config::consumers - count_bits(owners)) * Shared::releases_per_consumer;
  }

  /// Waits until the stage may be overwritten; who does not need it does not touch it, so its release is made here.
  TILEWRIGHT_DEVICE void wait_for_keys(uint32_t owners) {
    wait_for_keys_to_leave(shared_, ring_);
    const int others = releases_of_others(owners);
    if (others > 0 && elect_lane()) {
      arrive(shared_.key_empty(ring_.stage), others);
    }
  }
  TILEWRIGHT_DEVICE void wait_for_values(uint32_t owners) {
    wait(shared_.value_empty(ring_.stage), ring_.parity ^ 1);
    const int others = releases_of_others(owners);
    if (others > 0 && elect_lane()) {
      arrive(shared_.value_empty(ring_.stage), others);
    }
  }

  /// Written after both waits: then the stage's phases cannot be mistaken for older ones. Lane i writes to consumer i.
  TILEWRIGHT_DEVICE void tell(uint32_t owners, uint32_t ends, bool masked) {
    synchronize_warp(); // the elected lane has written the note
    const int lane = lane_index();
    if (lane < config::consumers && (owners >> lane & 1) != 0) {
      store_shared(shared_.queue_entry(lane, queue_.stage),
                   ((ends >> lane & 1) != 0 ? note_last : 0u) | (masked ? note_masked : 0u) |
                       static_cast<uint32_t>(ring_.stage) << 8 | ring_.parity << 16);
      arrive(shared_.queue_full(lane, queue_.stage));
      queue_.advance();
    }
    waiting_ = (waiting_ | owners) & ~ends;
#pragma unroll
    for (int consumer = 0; consumer < config::consumers; ++consumer) {
      distance_[consumer] = (owners >> consumer & 1) != 0 ? 1 : distance_[consumer] + 1;
    }
    ring_.advance();
  }

  const Shared& shared_;
  RingPlace ring_, queue_;               // queue_: of this lane's consumer
  uint32_t waiting_ = 0;                 // consumers whose item goes on
  int distance_[config::consumers] = {}; // stages from a consumer's last block to the next place of the ring
};

/// Brings the keys and values of the consumers' lists.
TILEWRIGHT_DEVICE void load_merged_keys(const KernelArguments& arguments, const Shared& shared) {
  const AttentionParameters& p = arguments.call.attention;
  const int tiles = p.key_grid.tiles_t * p.key_grid.tiles_h * p.key_grid.tiles_w;
  MergedLoader loader(shared);
  WindowPlace place;
  for (WorkList work(arguments.work); !work.done(); work.advance()) {
    const QueryBlock first_query = pattern_query_block(arguments.call, work.query_block(p, 0));
    const HeadBoxes key = key_boxes(arguments, first_query), value = value_boxes(arguments, first_query);
    uint32_t continued;
    int first = 0; // tile of the window
    do {
      wait(shared.window_full(place.slot), place.parity);
      uint32_t words[config::consumers], listed = 0; // this lane's
      int last_lane[config::consumers];              // that has a bit of the consumer
#pragma unroll
      for (int consumer = 0; consumer < config::consumers; ++consumer) {
        words[consumer] = load_shared_word(shared.window_word(place.slot, consumer, lane_index()));
        listed |= words[consumer];
        last_lane[consumer] = highest_bit(vote(words[consumer] != 0));
      }
      continued = uniform_shared_word(shared.window_note(place.slot));
      if (elect_lane()) {
        arrive(shared.window_empty(place.slot));
      }
      place.advance();
      for (uint32_t lanes = vote(listed != 0); lanes != 0; lanes &= lanes - 1) {
        const int lane = lowest_bit(lanes);
        uint32_t rest = 0, of_consumer[config::consumers];
#pragma unroll
        for (int consumer = 0; consumer < config::consumers; ++consumer) {
          of_consumer[consumer] = static_cast<uint32_t>(broadcast(static_cast<int>(words[consumer]), lane));
          rest |= of_consumer[consumer];
        }
        for (; rest != 0; rest &= rest - 1) {
          const int bit = lowest_bit(rest);
          uint32_t owners = 0, ends = 0;
#pragma unroll
          for (int consumer = 0; consumer < config::consumers; ++consumer) {
            const uint32_t from_here = of_consumer[consumer] >> bit;
            owners |= (from_here & 1) << consumer;
            if (from_here == 1 && lane == last_lane[consumer] && (continued >> consumer & 1) == 0) {
              ends |= 1u << consumer;
            }
          }
          const int number = first + lane * 32 + bit;
          const bool text = config::text && number == tiles;
          const TileCoordinate tile = text ? TileCoordinate{0, 0, 0} : tile_coordinate(p.key_grid, number);
          const TileRows<KeyTile> rows = text ? text_rows<KeyTile>(p.key_grid, p.text_length)
                                              : KeyBlocks::rows_of(arguments.call, first_query.batch, number, tile);
#pragma unroll 1
          for (int row = 0; row < rows.end; row += config::block_k) {
            loader.issue(key, value, KeyStep(text, tile, rows, row), owners,
                         row + config::block_k >= rows.end ? ends : 0);
          }
        }
      }
      first += window_tiles;
    } while (continued != 0);
  }
}

} // namespace tilewright
