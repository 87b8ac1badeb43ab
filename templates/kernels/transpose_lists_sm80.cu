// The inverse of a block list: which query tiles list a key tile, ascending. Runs twice: the first run counts, the
// second adds the counts up to offsets and fills in the query tiles. Without atomics: the same bits in every run.
//
// A thread block takes config::block_k key tiles of one head. It makes a bit for each of them and each query tile in
// shared memory; a lane walks one query tile's list, which is ascending, and 32 of them vote for every key tile.
#include "device/copy.cuh"
#include "device/warpgroup.cuh"
#include "kernels/tile_parameters.cuh"

#include "config.cuh"

namespace tilewright {

using KernelArguments = TransposeArguments;

constexpr int threads = config::warps * warp_size;
static_assert(config::block_k % warp_size == 0, "a lane keeps the word of one key tile in 32");

/// Query tiles 32 word .. 32 word + 31 that list a key tile, a bit each.
struct ListBits {
  SharedAddress base;
  int words; // of a key tile

  TILEWRIGHT_DEVICE SharedAddress at(int key, int word) const {
    return base + static_cast<uint32_t>((key * words + word) * 4);
  }
};

/// The first entry of an ascending list that is not below key.
TILEWRIGHT_DEVICE int lower_bound(const int32_t* list, int count, int key) {
  int low = 0;
  while (low < count) {
    const int middle = (low + count) / 2;
    if (load_constant(list + middle) < key) {
      low = middle + 1;
    } else {
      count = middle;
    }
  }
  return low;
}

/// Sets the bits of key tiles first_key .. first_key + config::block_k - 1.
TILEWRIGHT_DEVICE void collect_bits(const TransposeArguments& p, ListBits bits, int batch, int head, int first_key) {
  const int lane = lane_index();
  const int32_t* counts = p.lists.counts + batch * p.lists.count_batch_stride + head * p.lists.count_head_stride;
  const int32_t* indices = p.lists.indices + batch * p.lists.index_batch_stride + head * p.lists.index_head_stride;
#pragma unroll 1
  for (int word = warp_index(); word < bits.words; word += config::warps) {
    const int query = word * warp_size + lane;
    const int count = query < p.query_tiles ? load_constant(counts + query) : 0;
    const int32_t* list = indices + (query < p.query_tiles ? query : 0) * p.lists.index_tile_stride;
    int next = lower_bound(list, count, first_key);
    int listed = next < count ? load_constant(list + next) : p.key_tiles;
#pragma unroll 1
    for (int first = 0; first < config::block_k; first += warp_size) {
      uint32_t mine = 0;
#pragma unroll 4
      for (int i = 0; i < warp_size; ++i) {
        const bool has = listed == first_key + first + i;
        const uint32_t queries = vote(has);
        mine = lane == i ? queries : mine;
        if (has) {
          ++next;
          listed = next < count ? load_constant(list + next) : p.key_tiles;
        }
      }
      store_shared(bits.at(first + lane, word), mine);
    }
  }
}

/// All lanes: entries of the lists of key tiles 0 .. key - 1 of a head.
TILEWRIGHT_DEVICE int entries_before(const int32_t* counts, int key) {
  int sum = 0;
  for (int i = lane_index(); i < key; i += warp_size) {
    sum += load_constant(counts + i);
  }
  return sum_of_lanes(sum);
}

TILEWRIGHT_DEVICE int count_queries(ListBits bits, int key) {
  int sum = 0;
  for (int word = lane_index(); word < bits.words; word += warp_size) {
    sum += count_bits(load_shared_word(bits.at(key, word)));
  }
  return sum_of_lanes(sum);
}

/// Writes a key tile's query tiles, ascending.
TILEWRIGHT_DEVICE void write_queries(int32_t* list, ListBits bits, int key) {
  const int lane = lane_index();
#pragma unroll 1
  for (int word = 0; word < bits.words; ++word) {
    const uint32_t queries = load_shared_word(bits.at(key, word));
    if (queries >> lane & 1) {
      store_global(list + count_bits(queries & ((1u << lane) - 1)), word * warp_size + lane);
    }
    list += count_bits(queries);
  }
}

} // namespace tilewright

TILEWRIGHT_KERNEL(tilewright::threads, tilewright::config::blocks_per_processor)
transpose_lists(TILEWRIGHT_ARGUMENT(tilewright::KernelArguments, arguments)) {
  using namespace tilewright;
  const TransposeArguments& p = arguments;
  const int sequence = block_index() / p.blocks_per_head; // batch * heads + head
  const int first_key = block_index() % p.blocks_per_head * config::block_k;
  const ListBits bits{shared_memory(), (p.query_tiles + warp_size - 1) / warp_size};
  collect_bits(p, bits, sequence / p.heads, sequence % p.heads, first_key);
  synchronize_block();
  int32_t* counts = p.counts + static_cast<int64_t>(sequence) * p.key_tiles;
  int32_t* offsets = p.offsets + static_cast<int64_t>(sequence) * (p.key_tiles + 1);
#pragma unroll 1
  for (int key = warp_index(); key < config::block_k && first_key + key < p.key_tiles; key += config::warps) {
    const int number = first_key + key;
    const int count = count_queries(bits, key);
    if (p.fill == 0) {
      if (lane_index() == 0) {
        store_global(counts + number, count);
      }
      continue;
    }
    const int first = entries_before(counts, number);
    if (lane_index() == 0) {
      store_global(offsets + number, first);
      if (number == p.key_tiles - 1) {
        store_global(offsets + p.key_tiles, first + count);
      }
    }
    write_queries(p.indices + sequence * p.capacity + first, bits, key);
  }
}
