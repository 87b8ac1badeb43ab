// Who shares what in the backward kernels: roles of the warpgroups, layout of the shared memory. A kernel has included
// its sides (key_sides.cuh, query_sides.cuh) before: which rows a consumer owns, and which it walks through.
#pragma once

#include "device/shared_tile.cuh"
#include "kernels/sm90/own_rows.cuh"
#include "kernels/sm90/ring.cuh"

namespace tilewright {

using Element = config::Element;

constexpr int consumer_rows = 64; // that one consumer owns: the matrix instruction's m
constexpr int step_rows = 64;     // of a step of the walk
constexpr int threads = (1 + config::consumers) * warpgroup_size;
static_assert(block_walked == step_rows, "a stage holds 64 rows of each of two tensors");

// Either all consumers walk through one list, or each through its own and the loader merges them (sm90/loaders.cuh).
constexpr bool merged = block_owned < config::consumers * consumer_rows;
static_assert(merged ? block_owned == consumer_rows : block_owned == config::consumers * consumer_rows,
              "a block belongs to one consumer or to all");

using RowsShared = SharedTile<consumer_rows, config::head_dim>;
constexpr int panels = config::head_dim / RowsShared::panel_columns;

constexpr int statistics_bytes = walked_statistics ? 2 * step_rows * 4 : 0; // exponents, then deltas
constexpr int mask_words = step_rows / 32;
constexpr int stage_note_bytes = note_bytes<step_rows>;
constexpr int queue_slots = merged ? config::stages : 0;

// In the tiled layout a tile's padding rows may hold anything, NaN too: consumers zero them before any product.
// (Elsewhere rows that do not exist are outside the tensor map and arrive as zeros.)
constexpr bool rows_may_be_padding = config::layout_tiled && !config::dense && !config::edges_full;

/// Addresses in shared memory, front to back.
struct Shared {
  static constexpr uint32_t own_rows = 0;
  static constexpr uint32_t walked_rows = own_rows + 2 * config::consumers * RowsShared::bytes;
  static constexpr uint32_t statistics = walked_rows + 2 * config::stages * RowsShared::bytes;
  static constexpr uint32_t own_barriers = statistics + config::stages * statistics_bytes;
  static constexpr uint32_t stage_barriers = own_barriers + 2 * config::consumers * barrier_bytes;
  static constexpr uint32_t queue_barriers = stage_barriers + 2 * config::stages * barrier_bytes;
  static constexpr uint32_t notes = queue_barriers + config::consumers * queue_slots * barrier_bytes;
  static constexpr uint32_t own_notes = notes + config::stages * stage_note_bytes;
  static constexpr uint32_t queue = own_notes + config::consumers * 4;
  static constexpr uint32_t bytes = queue + config::consumers * queue_slots * 4;

  SharedAddress base;

  TILEWRIGHT_DEVICE SharedAddress at(uint32_t offset, int index, int size) const {
    return base + offset + static_cast<uint32_t>(index * size);
  }
  /// which: 0 and 1 are the two tensors, as BackwardTensorMaps orders them.
  TILEWRIGHT_DEVICE RowsShared own(int consumer, int which) const {
    return {at(own_rows, 2 * consumer + which, RowsShared::bytes)};
  }
  TILEWRIGHT_DEVICE RowsShared walked(int stage, int which) const {
    return {at(walked_rows, 2 * stage + which, RowsShared::bytes)};
  }
  TILEWRIGHT_DEVICE SharedAddress exponents(int stage) const { return at(statistics, stage, statistics_bytes); }
  TILEWRIGHT_DEVICE SharedAddress deltas(int stage) const { return exponents(stage) + step_rows * 4; }

  TILEWRIGHT_DEVICE OwnPlace own_place(int consumer) const {
    return {at(own_barriers, consumer, barrier_bytes), at(own_barriers, config::consumers + consumer, barrier_bytes),
            at(own_notes, consumer, 4)};
  }
  TILEWRIGHT_DEVICE SharedAddress full(int stage) const { return at(stage_barriers, stage, barrier_bytes); }
  TILEWRIGHT_DEVICE SharedAddress empty(int stage) const { return full(config::stages + stage); }
  TILEWRIGHT_DEVICE SharedAddress queue_full(int consumer, int slot) const {
    return at(queue_barriers, consumer * queue_slots + slot, barrier_bytes);
  }
  TILEWRIGHT_DEVICE SharedAddress note(int stage) const { return at(notes, stage, stage_note_bytes); }
  TILEWRIGHT_DEVICE SharedAddress mask(int stage) const { return note(stage) + 4; }
  TILEWRIGHT_DEVICE SharedAddress queue_entry(int consumer, int slot) const {
    return at(queue, consumer * queue_slots + slot, 4);
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
      initialize_barrier(full(stage), 1);
      initialize_barrier(empty(stage), config::consumers * warps_per_warpgroup);
    }
    publish_barriers();
  }
};
static_assert(Shared::bytes == config::shared_bytes, "schedule and kernel must agree on the shared memory");

} // namespace tilewright
