// Consumers with a list of key tiles each: a key block that several of them need is loaded once, for all of them.
//
// One warp (list_keys) turns the lists into steps: a key tile and its owners, the consumers that need it. The loading
// warp follows the steps, which costs it a few instructions a block: walking through the lists itself would keep it
// waiting for memory, and the consumers for it. Attention does not depend on the order of the keys, so the steps come
// in the order that keeps all consumers busy: no consumer gets a block while another is behind that could get one.
#pragma once

#include "kernels/sm90/loaders.cuh"

namespace tilewright {

/// A step, as a word: the tile's number, its owners, and those of them for whom it is the item's last tile.
struct MergedStep {
  static constexpr int owners_shift = 24, ends_shift = 28; // a bit a consumer
  static constexpr uint32_t tile_mask = (1u << owners_shift) - 1;

  int tile;
  uint32_t owners, ends;

  TILEWRIGHT_DEVICE uint32_t word() const {
    return static_cast<uint32_t>(tile) | owners << owners_shift | ends << ends_shift;
  }
  static TILEWRIGHT_DEVICE MergedStep of(uint32_t word) {
    return {static_cast<int>(word & tile_mask), word >> owners_shift & 0xf, word >> ends_shift};
  }
};
static_assert(config::consumers <= 4, "a step has four bits for its owners");

/// A place among the batches of steps, and the parity of the phase that fills it.
struct BatchPlace {
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

/// Hands the steps to the loading warp, in batches of a step a lane. All lanes call everything.
class StepWriter {
public:
  TILEWRIGHT_DEVICE explicit StepWriter(const Shared& shared) : shared_(shared) {}

  TILEWRIGHT_DEVICE void append(const MergedStep& step) {
    if (count_ == warp_size) {
      flush(0);
    }
    word_ = lane_index() == count_ ? step.word() : word_;
    ++count_;
  }
  TILEWRIGHT_DEVICE void end_item() { flush(batch_last); }

private:
  TILEWRIGHT_DEVICE void flush(uint32_t flags) {
    wait(shared_.batch_empty(place_.slot), place_.parity ^ 1);
    store_shared(shared_.batch_step(place_.slot, lane_index()), word_);
    if (lane_index() == 0) {
      store_shared(shared_.batch_note(place_.slot), static_cast<uint32_t>(count_) | flags);
    }
    synchronize_warp();
    if (elect_lane()) {
      arrive(shared_.batch_full(place_.slot));
    }
    place_.advance();
    count_ = 0;
  }

  const Shared& shared_;
  BatchPlace place_;
  int count_ = 0;
  uint32_t word_ = 0; // this lane's step
};

/// Of the tiles that each consumer lists (a bit a tile), those of exactly this set of consumers.
TILEWRIGHT_DEVICE uint32_t owned_by(const uint32_t (&listed)[config::consumers], int set) {
  uint32_t bits = ~0u;
#pragma unroll
  for (int consumer = 0; consumer < config::consumers; ++consumer) {
    bits &= (set >> consumer & 1) != 0 ? listed[consumer] : ~listed[consumer];
  }
  return bits;
}

/// The tiles of a window that one set of consumers needs, and no other consumer: lane m walks through those of set m.
class OwnedTiles {
public:
  /// `listed`: this lane's word of the window, of each consumer; the same in shared memory. All lanes.
  TILEWRIGHT_DEVICE OwnedTiles(const Shared& shared, const uint32_t (&listed)[config::consumers]) : shared_(shared) {
    int tiles = 0;
#pragma unroll
    for (int set = 1; set < 1 << config::consumers; ++set) {
      const int of_set = sum_of_lanes(count_bits(owned_by(listed, set)));
      tiles = lane_index() == set ? of_set : tiles;
    }
    share_ = whole / maximum(tiles, 1);
    if (tiles > 0) {
      find();
    } else {
      word_ = warp_size;
    }
  }

  static constexpr int whole = 1 << 16;

  TILEWRIGHT_DEVICE bool done() const { return word_ == warp_size; }
  TILEWRIGHT_DEVICE int tile() const { return word_ * 32 + lowest_bit(bits_); }
  /// How much of the set's tiles is behind, of `whole`.
  TILEWRIGHT_DEVICE int behind() const { return behind_; }

  TILEWRIGHT_DEVICE void advance() {
    behind_ += share_;
    bits_ &= bits_ - 1;
    find();
  }

private:
  TILEWRIGHT_DEVICE void find() {
    while (bits_ == 0 && ++word_ < warp_size) {
      uint32_t listed[config::consumers];
#pragma unroll
      for (int consumer = 0; consumer < config::consumers; ++consumer) {
        listed[consumer] = load_shared_word(shared_.window_word(consumer, word_));
      }
      bits_ = owned_by(listed, lane_index());
    }
  }

  const Shared& shared_;
  int word_ = -1, share_, behind_ = 0;
  uint32_t bits_ = 0; // of the word, those not yet visited
};

/// How far every consumer has come in an item.
struct Progress {
  int given[config::consumers] = {}; // tiles so far
  int left[config::consumers] = {};  // tiles of the window still to come

  /// Which set of consumers is served next. First of all one with nobody ahead of those who still need tiles; of these
  /// the one of whose tiles the least is behind: so tiles of many owners and of one alternate. A run of the latter
  /// would find too few stages, as every consumer holds two. Lane m speaks for set m.
  TILEWRIGHT_DEVICE uint32_t next_owners(const OwnedTiles& tiles) const {
    int least = no_limit;
#pragma unroll
    for (int consumer = 0; consumer < config::consumers; ++consumer) {
      least = left[consumer] > 0 ? minimum(least, given[consumer]) : least;
    }
    int lead = 0; // of the set's consumers together
#pragma unroll
    for (int consumer = 0; consumer < config::consumers; ++consumer) {
      lead += (lane_index() >> consumer & 1) != 0 ? given[consumer] - least : 0;
    }
    constexpr int large_lead = 63;
    const int merit =
        (large_lead - minimum(lead, large_lead)) * 2 * OwnedTiles::whole + OwnedTiles::whole - tiles.behind();
    const auto word = static_cast<uint32_t>(merit) << 5 | static_cast<uint32_t>(lane_index());
    return maximum_of_lanes(tiles.done() ? 0u : word) & 31;
  }

  /// Counts a tile for its owners. Returns those who need no more in this window.
  TILEWRIGHT_DEVICE uint32_t give(uint32_t owners) {
    uint32_t ends = 0;
#pragma unroll
    for (int consumer = 0; consumer < config::consumers; ++consumer) {
      if ((owners >> consumer & 1) != 0) {
        ++given[consumer];
        ends |= --left[consumer] == 0 ? 1u << consumer : 0u;
      }
    }
    return ends;
  }
};

/// Writes the steps of the window that begins with tile `first`; `continued`: whose lists go on behind it.
TILEWRIGHT_DEVICE void write_steps(OwnedTiles tiles, StepWriter& writer, Progress& progress, int first,
                                   uint32_t continued) {
  while (vote(!tiles.done()) != 0) {
    const uint32_t owners = progress.next_owners(tiles);
    const int tile = first + broadcast(tiles.tile(), static_cast<int>(owners));
    writer.append({tile, owners, progress.give(owners) & ~continued});
    if (lane_index() == static_cast<int>(owners)) {
      tiles.advance();
    }
  }
}

/// Writes the steps of every item; none: an empty batch.
TILEWRIGHT_DEVICE void list_keys(const KernelArguments& arguments, const Shared& shared) {
  const AttentionParameters& p = arguments.call.attention;
  StepWriter writer(shared);
  for (WorkList work(arguments.work); !work.done(); work.advance()) {
    int next[config::consumers] = {}; // entry of each consumer's list
    Progress progress;
    uint32_t continued;
    int first = 0; // tile of the window
    do {
      continued = 0;
      uint32_t words[config::consumers];
#pragma unroll
      for (int consumer = 0; consumer < config::consumers; ++consumer) {
        const int index = work.query_block(p, consumer);
        const QueryBlock query = pattern_query_block(arguments.call, maximum(index, 0));
        uint32_t& word = words[consumer] = 0;
        if (index >= 0 && has_work(arguments, query)) {
          const auto tiles = listed_tiles(arguments.call, query);
          word = window_of(tiles, next[consumer], first);
          continued |= next[consumer] < tiles.count ? 1u << consumer : 0u;
        }
        progress.left[consumer] = sum_of_lanes(count_bits(word));
        store_shared(shared.window_word(consumer, lane_index()), word);
      }
      synchronize_warp();
      write_steps(OwnedTiles(shared, words), writer, progress, first, continued);
      synchronize_warp(); // all have read the window
      first += window_tiles;
    } while (continued != 0);
    writer.end_item();
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
      if ((overdue() & ~owners) != 0) {
        issue_bubble(key, value, waiting_); // for all: it moves the blocks of those left out towards a whole ring away
      }
    }
    wait_for_keys(owners);
    write_key_note(shared_.note(ring_.stage), step, false);
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
                   queue_entry(note_flags((ends >> lane & 1) != 0, masked), ring_));
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
  BatchPlace place;
  for (WorkList work(arguments.work); !work.done(); work.advance()) {
    const QueryBlock first_query = pattern_query_block(arguments.call, work.query_block(p, 0));
    const HeadBoxes key = key_boxes(arguments, first_query), value = value_boxes(arguments, first_query);
    uint32_t note;
    do {
      wait(shared.batch_full(place.slot), place.parity);
      const uint32_t word = load_shared_word(shared.batch_step(place.slot, lane_index()));
      note = uniform_shared_word(shared.batch_note(place.slot));
      if (elect_lane()) {
        arrive(shared.batch_empty(place.slot));
      }
      place.advance();
      const int count = static_cast<int>(note & ~batch_last);
      const TileCoordinate mine = tile_coordinate(p.key_grid, MergedStep::of(word).tile); // of all steps at once
#pragma unroll 1
      for (int i = 0; i < count; ++i) {
        const MergedStep step = MergedStep::of(static_cast<uint32_t>(broadcast(static_cast<int>(word), i)));
        const bool text = config::text && step.tile == tiles;
        const TileCoordinate tile{broadcast(mine.t, i), broadcast(mine.h, i), broadcast(mine.w, i)};
        const TileRows<KeyTile> rows = text ? text_rows<KeyTile>(p.key_grid, p.text_length)
                                            : KeyBlocks::rows_of(arguments.call, first_query.batch, step.tile, tile);
#pragma unroll 1
        for (int row = 0; row < rows.end; row += config::block_k) {
          loader.issue(key, value, KeyStep(text, tile, rows, row), step.owners,
                       row + config::block_k >= rows.end ? step.ends : 0);
        }
      }
    } while ((note & batch_last) == 0);
  }
}

} // namespace tilewright
