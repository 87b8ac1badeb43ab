// The key blocks of a query block, found ahead of those that load them: one warp looks at 16 at a time, a lane each, so
// that the main loop does no arithmetic about tiles, windows and lists.
#pragma once

#include "pattern.cuh"

#include "device/parking.cuh"
#include "device/warpgroup.cuh"

namespace tilewright {

static_assert(config::block_k == warp_size, "which keys of a block are valid is a word, a bit each");
static_assert(KeyTile::tokens % config::block_k == 0, "a key tile must be a whole number of key blocks");

/// Where the first row of config::block_k keys of one tile, or of the text, stands.
struct BlockAddresses {
  const uint16_t* key;
  const uint16_t* value;
};

/// What is known of its rows.
struct BlockRows {
  uint32_t valid;    // a bit a key. No key: the list ends here
  int32_t first_row; // within the tile or the text
  int32_t text;
};

/// Tokens from a block's first row to another one.
TILEWRIGHT_DEVICE int token_offset(const AttentionParameters& p, const BlockRows& block, int row) {
  using Rows = TileRows<KeyTile>;
  Rows rows;
  rows.stride_t = p.key_grid.h * p.key_grid.w;
  rows.stride_h = p.key_grid.w;
  if (config::text && block.text != 0) {
    rows.stride_t = KeyTile::h * KeyTile::w;
    rows.stride_h = KeyTile::w;
  }
  if constexpr (Rows::template keeps_digits<config::block_k>) {
    return rows.token_offset(row);
  } else {
    return rows.token_offset(block.first_row + row) - rows.token_offset(block.first_row);
  }
}

TILEWRIGHT_DEVICE uint32_t valid_keys(const TileRows<KeyTile>& rows, int first_row) {
  if constexpr (!TileRows<KeyTile>::may_be_partial) {
    return all_lanes;
  }
  if (rows.contains_all(first_row, config::block_k)) {
    return all_lanes;
  }
  uint32_t valid = 0;
#pragma unroll 1 // rare
  for (int key = 0; key < config::block_k; ++key) {
    valid |= (rows.contains(first_row + key) ? 1u : 0u) << key;
  }
  return valid;
}

/// A ring of blocks in shared memory, numbered from 0. Each place is written once before it is read.
class KeyList {
  static constexpr int addition = warp_size / 2; // candidates that are looked at together
  static constexpr int places = warp_size;       // an addition, and what is being read meanwhile
  static_assert(config::stages + 2 <= places - addition, "the ring must hold the blocks in flight");
  static constexpr int valid_offset = places * parked_bytes<BlockAddresses>;
  static constexpr int origin_offset = valid_offset + places * static_cast<int>(sizeof(uint32_t));
  static constexpr int progress_offset = origin_offset + places * static_cast<int>(sizeof(uint32_t));
  static constexpr int blocks_per_tile = KeyTile::tokens / config::block_k;
  static constexpr bool has_origins = config::text || !TileRows<KeyTile>::template keeps_digits<config::block_k>;

public:
  static constexpr int bytes = progress_offset + copy_bytes;

  /// base: a multiple of 16.
  TILEWRIGHT_DEVICE explicit KeyList(SharedAddress base) : base_(base) {}

  TILEWRIGHT_DEVICE BlockAddresses addresses(int i) const { return parked<BlockAddresses>(address_place(i)); }
  TILEWRIGHT_DEVICE uint32_t valid(int i) const { return load_shared_word(base_ + valid_offset + word(i)); }
  TILEWRIGHT_DEVICE BlockRows rows(int i) const {
    const uint32_t origin = has_origins ? load_shared_word(base_ + origin_offset + word(i)) : 0;
    return {valid(i), static_cast<int32_t>(origin / 2), static_cast<int32_t>(origin % 2)};
  }

  /// Before the first extension. One warp.
  TILEWRIGHT_DEVICE void clear() const {
    if (lane_index() == 0) {
      store_shared(base_ + progress_offset, Bytes16{});
    }
    synchronize_warp();
  }

  /// Makes blocks up to number `last` known; behind the last of the query block stand blocks without keys. The same
  /// warp every time; others read after a barrier.
  TILEWRIGHT_DEVICE void extend(const AttentionArguments<PatternParameters>& arguments, int last) const {
    const Bytes16 progress = load_shared(base_ + progress_offset);
    int listed = static_cast<int>(progress.words[0]), candidate = static_cast<int>(progress.words[1]);
    if (last < listed) {
      return;
    }
    // Derived anew: kept, it would hold registers around the main loop.
    const QueryBlock query = pattern_query_block(arguments, opaque(block_index()));
    const auto tiles = listed_tiles(arguments, query);
    const int candidates = count_candidates(arguments.attention, tiles.count);
    const int lane = lane_index();
    while (listed <= last) {
      TileRows<KeyTile> tile_rows;
      BlockRows block{};
      if (lane < addition && candidate + lane < candidates) {
        block = candidate_rows(arguments, query, tiles, candidate + lane, tile_rows);
      }
      const uint32_t with_keys = vote(block.valid != 0), before = (1u << lane) - 1;
      const int found = count_bits(with_keys);
      const int rank = block.valid != 0 ? count_bits(with_keys & before) : found + count_bits(~with_keys & before);
      if (lane < addition) {
        const int i = listed + rank;
        store_shared(base_ + valid_offset + word(i), block.valid);
        store_shared(base_ + origin_offset + word(i), static_cast<uint32_t>(block.first_row * 2 + block.text));
        park(address_place(i),
             first_row_of(arguments.attention, query, block.valid != 0 ? tile_rows.token(block.first_row) : 0));
      }
      synchronize_warp(); // the places behind the found ones are written again, unless it was the last time
      listed = candidate < candidates ? listed + found : no_limit;
      candidate += addition;
    }
    if (lane == 0) {
      store_shared(base_ + progress_offset,
                   Bytes16{{static_cast<uint32_t>(listed), static_cast<uint32_t>(candidate), 0, 0}});
    }
    synchronize_warp();
  }

private:
  TILEWRIGHT_DEVICE SharedAddress address_place(int i) const {
    return base_ + static_cast<uint32_t>(i) % places * parked_bytes<BlockAddresses>;
  }
  static TILEWRIGHT_DEVICE uint32_t word(int i) { return static_cast<uint32_t>(i) % places * sizeof(uint32_t); }

  static TILEWRIGHT_DEVICE BlockAddresses first_row_of(const AttentionParameters& p, const QueryBlock& query,
                                                       int token) {
    const int kv_head = query.head / p.heads_per_kv_head;
    const auto row = [&](const void* tensor, const Strides& strides) {
      return static_cast<const uint16_t*>(tensor) + query.batch * strides.batch + kv_head * strides.head +
             token * strides.token;
    };
    return {row(p.key, p.key_strides), row(p.value, p.value_strides)};
  }

  static TILEWRIGHT_DEVICE bool has_text(const AttentionParameters& p) { return config::text && p.text_length > 0; }

  /// The blocks of all listed tiles, the text being the last.
  static TILEWRIGHT_DEVICE int count_candidates(const AttentionParameters& p, int tiles) {
    if (has_text(p)) {
      return (tiles - 1) * blocks_per_tile + (p.text_length + config::block_k - 1) / config::block_k;
    }
    return tiles * blocks_per_tile;
  }

  /// tile_rows: those of the tile, or the text, that the block is of.
  template <class Tiles>
  static TILEWRIGHT_DEVICE BlockRows candidate_rows(const AttentionArguments<PatternParameters>& arguments,
                                                    const QueryBlock& query, const Tiles& tiles, int candidate,
                                                    TileRows<KeyTile>& tile_rows) {
    const AttentionParameters& p = arguments.attention;
    const int i = minimum(candidate / blocks_per_tile, tiles.count - 1);
    const int first_row = (candidate - i * blocks_per_tile) * config::block_k;
    const bool text = has_text(p) && i == tiles.count - 1;
    if (text) {
      tile_rows = text_rows<KeyTile>(p.key_grid, p.text_length);
    } else {
      const int number = tiles.number(i);
      tile_rows = KeyBlocks::rows_of(arguments, query.batch, number, tile_coordinate(p.key_grid, number));
    }
    return {valid_keys(tile_rows, first_row), first_row, text};
  }

  SharedAddress base_;
};

} // namespace tilewright
