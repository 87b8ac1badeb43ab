// Rows from global memory into shared memory, by all threads of a block.
#pragma once

#include "kernels/sm80/forward_rows.cuh"
#include "kernels/sm80/key_list.cuh"

namespace tilewright {

constexpr int threads = config::warps * warp_size;

/// The query block's rows; rows that are not valid become zeros.
TILEWRIGHT_DEVICE void load_query(QueryShared tile, const AttentionParameters& p, const QueryBlock& query) {
  constexpr int rows_per_pass = threads / QueryShared::chunks_per_row;
  static_assert(QueryShared::rows % rows_per_pass == 0, "the threads must copy whole rows");
  // Opaque: what the end derives from the same place would be kept from here on.
  const auto thread = static_cast<uint32_t>(opaque(thread_index()));
  const int chunk = static_cast<int>(thread % QueryShared::chunks_per_row);
  const int first = static_cast<int>(thread / QueryShared::chunks_per_row);
  const auto* source = static_cast<const uint16_t*>(p.query) + query.batch * p.query_strides.batch +
                       query.head * p.query_strides.head + chunk * QueryShared::chunk_elements;
#pragma unroll 4 // more in flight would gain nothing: the copies are asynchronous
  for (int pass = 0; pass < QueryShared::rows / rows_per_pass; ++pass) {
    const int row = first + pass * rows_per_pass;
    const bool valid = query.valid(row);
    copy_async(tile.chunk(row, chunk), source + (valid ? query.token(row) * p.query_strides.token : 0), valid);
  }
}

/// Loads blocks of keys and values. A thread copies the same chunk of the same row of every pass.
class BlockLoader {
  /// What the thread's row adds to a block's first row, in elements. Parked in shared memory: around the main loop it
  /// would hold registers.
  struct RowOffsets {
    int64_t key, value;
  };
  static constexpr int rows_per_pass = threads / KeyShared::chunks_per_row;
  static_assert(KeyShared::rows % rows_per_pass == 0, "the threads must copy whole rows");
  /// Whether a row's token is the sum of what its pass and its thread add. Otherwise each row is found by itself.
  static constexpr bool adds_up = TileRows<KeyTile>::template keeps_digits<config::block_k> &&
                                  TileRows<KeyTile>::template keeps_digits<rows_per_pass>;
  static constexpr int kinds = config::text ? 2 : 1; // of blocks: the text's rows follow each other, a tile's may not

public:
  static constexpr int bytes = kinds * rows_per_pass * parked_bytes<RowOffsets>;

  /// base: a multiple of 16. What the threads prepare others read: after a barrier.
  TILEWRIGHT_DEVICE BlockLoader(SharedAddress base, const AttentionParameters& p) : p_(p), base_(base) {
    if (thread_index() < kinds * rows_per_pass) {
      const int text = thread_index() / rows_per_pass, row = thread_index() % rows_per_pass;
      const int tokens = adds_up ? token_offset(p, BlockRows{0, 0, text}, row) : 0;
      park(place(thread_index()), RowOffsets{tokens * p.key_strides.token, tokens * p.value_strides.token});
    }
  }

  /// Rows whose keys are not valid become zeros.
  TILEWRIGHT_DEVICE void load_keys(KeyShared tile, const KeyList& list, int block) const {
    const BlockRows rows = list.rows(block);
    load(tile, list.addresses(block).key + offsets(rows).key, p_.key_strides.token, rows);
  }
  TILEWRIGHT_DEVICE void load_values(KeyShared tile, const KeyList& list, int block) const {
    const BlockRows rows = list.rows(block);
    load(tile, list.addresses(block).value + offsets(rows).value, p_.value_strides.token, rows);
  }

private:
  TILEWRIGHT_DEVICE SharedAddress place(int row) const {
    return base_ + static_cast<uint32_t>(row) * parked_bytes<RowOffsets>;
  }
  TILEWRIGHT_DEVICE RowOffsets offsets(const BlockRows& rows) const {
    const int row = static_cast<int>(static_cast<uint32_t>(thread_index()) / KeyShared::chunks_per_row);
    return parked<RowOffsets>(place((config::text ? rows.text * rows_per_pass : 0) + row));
  }

  TILEWRIGHT_DEVICE void load(KeyShared tile, const uint16_t* source, int64_t token_stride,
                              const BlockRows& block) const {
    // Opaque: what is derived from it, kept around the main loop, would hold registers.
    const auto thread = static_cast<uint32_t>(opaque(thread_index()));
    const int thread_row = static_cast<int>(thread / KeyShared::chunks_per_row);
    const int chunk = static_cast<int>(thread % KeyShared::chunks_per_row);
    const uint32_t chunk_place = tile.base + KeyShared::offset(thread_row, chunk);
    source += chunk * KeyShared::chunk_elements;
#pragma unroll
    for (int row = 0; row < KeyShared::rows; row += rows_per_pass) {
      const int tokens = token_offset(p_, block, adds_up ? row : thread_row + row);
      const bool valid =
          TileRows<KeyTile>::may_be_partial ? (block.valid >> (thread_row + row) & 1) != 0 : block.valid != 0;
      copy_async(KeyShared::moved(chunk_place, row, 0), source + tokens * token_stride, valid);
    }
  }

  const AttentionParameters& p_;
  SharedAddress base_;
};

} // namespace tilewright
