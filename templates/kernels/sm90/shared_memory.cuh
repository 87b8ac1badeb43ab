// Who shares what: the roles of a thread block's warpgroups and the layout of its shared memory.
#pragma once

#include "pattern.cuh"

#include "device/shared_tile.cuh"
#include "kernels/mapped_attention_parameters.cuh"
#include "kernels/sm90/own_rows.cuh"
#include "kernels/sm90/ring.cuh"

namespace tilewright {

using Element = config::Element;
using KernelArguments = MappedAttentionArguments<PatternParameters>;

// Warpgroup 0 loads, each of the others computes consumer_rows query rows.
constexpr int consumer_rows = 64; // the matrix instruction's m
constexpr int threads = (1 + config::consumers) * warpgroup_size;

// Either all consumers work on one query block, whose keys they all need; or each has a query block of its own, and the
// loader merges their lists of key blocks so that a block that several of them need is loaded once.
constexpr bool merged = config::block_q < config::consumers * consumer_rows;
static_assert(merged ? config::block_q == consumer_rows : config::block_q == config::consumers * consumer_rows,
              "a query block belongs to one consumer or to all");
static_assert(!merged || config::cluster == 1, "merged lists leave consumers at different places: a cluster could wait "
                                               "for itself");
static_assert(KeyTile::tokens % config::block_k == 0, "a key tile must be a whole number of key blocks");

using QueryShared = SharedTile<consumer_rows, config::head_dim>; // of one consumer; its result passes through it too
using KeyShared = SharedTile<config::block_k, config::head_dim>; // one stage's keys, or values
constexpr int panels = config::head_dim / KeyShared::panel_columns;

// Keys and values travel through a ring of stages, merged lists' consumers have a queue each beside it (ring.cuh).
constexpr int mask_words = config::block_k / 32;
constexpr int stage_note_bytes = note_bytes<config::block_k>;
constexpr int queue_slots = merged ? config::stages : 0;
// The merged lists are looked at a window at a time, and reach the loader as batches of steps (merged_lists.cuh).
constexpr int window_tiles = warp_size * 32; // a word a lane, a bit a key tile
constexpr int batch_slots = merged ? 2 : 0;
constexpr uint32_t batch_last = 1u << 31; // in a batch's note, which else is the number of its steps: the item ends

// In the tiled layout a tile's padding rows may hold anything, NaN too, and 0 * NaN is NaN: consumers zero such values.
// (Elsewhere keys that do not exist are outside the tensor map and arrive as zeros.)
constexpr bool values_may_be_padding = config::layout_tiled && !config::dense && !config::edges_full;

/// Addresses in shared memory, front to back; a barrier "full" says that the data are there, "empty" that they may be
/// overwritten.
struct Shared {
  static constexpr uint32_t queries = 0;
  static constexpr uint32_t keys = queries + config::consumers * QueryShared::bytes;
  static constexpr uint32_t values = keys + config::stages * KeyShared::bytes;
  static constexpr uint32_t barriers = values + config::stages * KeyShared::bytes;
  static constexpr uint32_t query_barriers = barriers;
  static constexpr uint32_t stage_barriers = query_barriers + 2 * config::consumers * barrier_bytes;
  static constexpr uint32_t queue_barriers = stage_barriers + 4 * config::stages * barrier_bytes;
  static constexpr uint32_t batch_barriers = queue_barriers + config::consumers * queue_slots * barrier_bytes;
  static constexpr uint32_t notes = batch_barriers + 2 * batch_slots * barrier_bytes;
  static constexpr uint32_t query_notes = notes + config::stages * stage_note_bytes;
  static constexpr uint32_t queue = query_notes + config::consumers * 4;
  static constexpr uint32_t batches = queue + config::consumers * queue_slots * 4;
  static constexpr int batch_words = warp_size + 1; // steps, and the note
  static constexpr uint32_t window = batches + batch_slots * batch_words * 4;
  static constexpr uint32_t bytes = window + (merged ? config::consumers * warp_size * 4 : 0);

  SharedAddress base;

  TILEWRIGHT_DEVICE SharedAddress at(uint32_t offset, int index, int size) const {
    return base + offset + static_cast<uint32_t>(index * size);
  }
  TILEWRIGHT_DEVICE QueryShared query(int consumer) const { return {at(queries, consumer, QueryShared::bytes)}; }
  TILEWRIGHT_DEVICE KeyShared key(int stage) const { return {at(keys, stage, KeyShared::bytes)}; }
  TILEWRIGHT_DEVICE KeyShared value(int stage) const { return {at(values, stage, KeyShared::bytes)}; }

  TILEWRIGHT_DEVICE OwnPlace own_place(int consumer) const {
    return {at(query_barriers, consumer, barrier_bytes),
            at(query_barriers, config::consumers + consumer, barrier_bytes), at(query_notes, consumer, 4)};
  }
  TILEWRIGHT_DEVICE SharedAddress key_full(int stage) const { return at(stage_barriers, stage, barrier_bytes); }
  TILEWRIGHT_DEVICE SharedAddress key_empty(int stage) const { return key_full(config::stages + stage); }
  TILEWRIGHT_DEVICE SharedAddress value_full(int stage) const { return key_full(2 * config::stages + stage); }
  TILEWRIGHT_DEVICE SharedAddress value_empty(int stage) const { return key_full(3 * config::stages + stage); }
  TILEWRIGHT_DEVICE SharedAddress queue_full(int consumer, int slot) const {
    return at(queue_barriers, consumer * queue_slots + slot, barrier_bytes);
  }

  TILEWRIGHT_DEVICE SharedAddress batch_full(int slot) const { return at(batch_barriers, slot, barrier_bytes); }
  TILEWRIGHT_DEVICE SharedAddress batch_empty(int slot) const { return batch_full(batch_slots + slot); }

  TILEWRIGHT_DEVICE SharedAddress note(int stage) const { return at(notes, stage, stage_note_bytes); }
  TILEWRIGHT_DEVICE SharedAddress key_mask(int stage) const { return note(stage) + 4; }
  TILEWRIGHT_DEVICE SharedAddress queue_entry(int consumer, int slot) const {
    return at(queue, consumer * queue_slots + slot, 4);
  }

  TILEWRIGHT_DEVICE SharedAddress batch_step(int slot, int lane) const {
    return at(batches, slot * batch_words + lane, 4);
  }
  TILEWRIGHT_DEVICE SharedAddress batch_note(int slot) const { return batch_step(slot, warp_size); }
  TILEWRIGHT_DEVICE SharedAddress window_word(int consumer, int lane) const {
    return at(window, consumer * warp_size + lane, 4);
  }

  /// One thread, once, before the others begin.
  TILEWRIGHT_DEVICE void initialize() const {
    for (int consumer = 0; consumer < config::consumers; ++consumer) {
      own_place(consumer).initialize();
      for (int slot = 0; slot < queue_slots; ++slot) {
        initialize_barrier(queue_full(consumer, slot), 1);
      }
    }
    for (int stage = 0; stage < config::stages; ++stage) {
      initialize_barrier(key_full(stage), 1);
      initialize_barrier(value_full(stage), 1);
      initialize_barrier(key_empty(stage), releases_per_stage);
      initialize_barrier(value_empty(stage), releases_per_stage);
    }
    for (int slot = 0; slot < batch_slots; ++slot) {
      initialize_barrier(batch_full(slot), 1);
      initialize_barrier(batch_empty(slot), 1);
    }
    publish_barriers();
  }

  // A consumer's warps release a stage one by one, in every thread block that the stage's data were copied to.
  static constexpr int releases_per_consumer = warps_per_warpgroup;
  static constexpr int releases_per_stage = config::consumers * releases_per_consumer * config::cluster;
};
static_assert(Shared::bytes == config::shared_bytes, "schedule and kernel must agree on the shared memory");

} // namespace tilewright
