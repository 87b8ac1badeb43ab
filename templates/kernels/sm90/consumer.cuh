// The computing warpgroups. Each computes consumer_rows query rows of an item against the item's key blocks.
#pragma once

#include "device/matrix.cuh"
#include "kernels/sm90/epilogue.cuh"
#include "kernels/sm90/softmax.cuh"

namespace tilewright {

/// A key block that has arrived.
struct KeyStage {
  int stage;
  uint32_t parity; // of the phase that filled it
  bool last;       // of the item
  bool masked;     // some keys do not exist
};

constexpr bool bubbles = merged && config::overlap; // blocks without a key (merged_lists.cuh)

/// What one consumer sees of the ring of stages.
class KeyStages {
public:
  TILEWRIGHT_DEVICE KeyStages(const Shared& shared, int consumer) : shared_(shared), consumer_(consumer) {}

  /// Waits for the next key block of this consumer.
  TILEWRIGHT_DEVICE KeyStage take() {
    uint32_t note;
    RingPlace from = place_;
    if constexpr (merged) {
      if (!looked_) {
        wait(shared_.queue_full(consumer_, place_.stage), place_.parity);
        entry_ = load_shared_word(shared_.queue_entry(consumer_, place_.stage));
      }
      looked_ = false;
      note = uniform(entry_);
      from = queued_place(note);
      wait(shared_.key_full(from.stage), from.parity);
    } else {
      wait(shared_.key_full(from.stage), from.parity);
      note = uniform_shared_word(shared_.note(from.stage));
    }
    place_.advance();
    const bool may_be_masked = TileRows<KeyTile>::may_be_partial || bubbles;
    return {from.stage, from.parity, (note & note_last) != 0, may_be_masked && (note & note_masked) != 0};
  }

  /// Reads the next block's entry of the queue if it is there: then it need not be waited for when the block is taken.
  TILEWRIGHT_DEVICE void look_ahead() {
    if constexpr (merged) {
      looked_ = has_passed(shared_.queue_full(consumer_, place_.stage), place_.parity);
      if (looked_) {
        entry_ = load_shared_word(shared_.queue_entry(consumer_, place_.stage));
      }
    }
  }

  TILEWRIGHT_DEVICE void wait_for_values(const KeyStage& taken) const {
    wait(shared_.value_full(taken.stage), taken.parity);
  }

  TILEWRIGHT_DEVICE void release_keys(const KeyStage& taken) const { release(shared_.key_empty(taken.stage)); }
  TILEWRIGHT_DEVICE void release_values(const KeyStage& taken) const { release(shared_.value_empty(taken.stage)); }

private:
  /// This warp's arrival, in every thread block of the cluster.
  static TILEWRIGHT_DEVICE void release(SharedAddress barrier) {
    if constexpr (config::cluster == 1) {
      if (lane_index() == 0) {
        arrive(barrier);
      }
    } else if (lane_index() < config::cluster) {
      arrive_in_cluster(barrier, lane_index());
    }
  }

  const Shared& shared_;
  int consumer_;
  RingPlace place_;     // merged: in the queue
  bool looked_ = false; // merged: entry_ is the next block's
  uint32_t entry_ = 0;
};

// The last columns of a consumer's query rows stand in registers, as many as there are registers for: read from shared
// memory by every product, the whole query would need all of its bandwidth (64 rows against 64 keys: 4 KiB of operands
// in 32 cycles).
constexpr int registered_columns = config::query_columns_in_registers;
constexpr int shared_columns = config::head_dim - registered_columns;
using QueryFragments = uint32_t[registered_columns > 0 ? registered_columns / 4 : 8]; // two elements each

TILEWRIGHT_DEVICE void load_fragments(QueryFragments& fragments, QueryShared query) {
  const int warp = warp_index() % warps_per_warpgroup, lane = lane_index();
#pragma unroll
  for (int column = 0; column < registered_columns; column += 16) {
    uint32_t fragment[4];
    load_matrices(fragment, query.chunk(warp * 16 + lane % 16, (shared_columns + column) / 8 + lane / 16));
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      fragments[column / 4 + i] = fragment[i];
    }
  }
}

/// Issues scores = Q K^T.
TILEWRIGHT_DEVICE void multiply_query_key(Scores& scores, QueryShared query, const QueryFragments& fragments,
                                          KeyShared key) {
#pragma unroll
  for (int depth = 0; depth < config::head_dim; depth += 16) {
    constexpr int panel_columns = KeyShared::panel_columns;
    const uint32_t column_bytes = depth % panel_columns * element_bytes;
    const SharedMatrix a =
        SharedMatrix::k_in_columns(query.base) + (depth / panel_columns * QueryShared::panel_bytes + column_bytes);
    const SharedMatrix b =
        SharedMatrix::k_in_columns(key.base) + (depth / panel_columns * KeyShared::panel_bytes + column_bytes);
    if (depth == 0 && shared_columns > 0) {
      multiply_shared<Element, false>(scores, a, b);
    } else if (depth < shared_columns) {
      multiply_shared<Element, true>(scores, a, b);
    } else if (depth == 0) {
      multiply_registers<Element, false, true>(scores, fragments, b);
    } else {
      multiply_registers<Element, true, true>(scores, fragments + (depth - shared_columns) / 4, b);
    }
  }
  commit_products();
}

/// Issues output += P V.
TILEWRIGHT_DEVICE void multiply_probability_value(RowState& state, const Probabilities& probabilities,
                                                  KeyShared value) {
#pragma unroll
  for (int key = 0; key < config::block_k; key += 16) {
    const SharedMatrix b =
        SharedMatrix::k_in_rows(value.base, KeyShared::panel_bytes) + static_cast<uint32_t>(key * KeyShared::row_bytes);
    multiply_registers<Element, true>(state.output, &probabilities[key / 4], b);
  }
  commit_products();
}

/// Zeros the values of keys that do not exist. All consumers do, each before its own product.
TILEWRIGHT_DEVICE void clear_missing_values(KeyShared value, SharedAddress mask, int consumer) {
  constexpr int chunks = KeyShared::chunks_per_row;
  for (int i = thread_index() % warpgroup_size; i < KeyShared::rows * chunks; i += warpgroup_size) {
    const int row = i / chunks;
    if ((load_shared_word(mask + row / 32 * 4) >> (row % 32) & 1) == 0) {
      store_shared(value.chunk(row, i % chunks), Bytes16{});
    }
  }
  fence_shared_for_copies();
  synchronize_consumer(consumer);
}

/// The whole of a consumer's work.
TILEWRIGHT_DEVICE void consume(const KernelArguments& arguments, const Shared& shared, int consumer) {
  const float scale = arguments.call.attention.scale_log2;
  const QueryShared query = shared.query(consumer);
  KeyStages stages(shared, consumer);
  RowState state;
  Scores scores;
  Probabilities probabilities;
  QueryFragments fragments;

  const auto issue_scores = [&](const KeyStage& taken) {
    pin(scores);
    if constexpr (registered_columns > 0) {
      pin(fragments);
    }
    fence_products();
    multiply_query_key(scores, query, fragments, shared.key(taken.stage));
  };
  const auto finish_scores = [&](const KeyStage& taken) {
    pin(scores);
    if (taken.masked) {
      mask_scores(scores, shared.key_mask(taken.stage));
    }
  };
  const auto issue_output = [&](const KeyStage& taken) {
    stages.wait_for_values(taken);
    if (values_may_be_padding && taken.masked) {
      clear_missing_values(shared.value(taken.stage), shared.key_mask(taken.stage), consumer);
    }
    pin(state.output);
    pin(probabilities);
    fence_products();
    multiply_probability_value(state, probabilities, shared.value(taken.stage));
  };
  const auto finish_output = [&](const KeyStage& taken) {
    wait_for_products<0>();
    pin(state.output);
    pin(probabilities);
    stages.release_values(taken);
  };
  const auto next_probabilities = [&](const KeyStage& taken) {
    return continue_softmax(
        state, scores, scale, [&](bool condition) { return any_of_threads(1 + consumer, warpgroup_size, condition); },
        [&] {
          issue_scores(taken);
          wait_for_products<0>();
          finish_scores(taken);
        });
  };

  OwnRows own_rows(shared, consumer);
  // No condition stands around the inner loop: the compiler would keep addresses in vector registers.
  while (own_rows.next() != no_more_rows) {
#pragma unroll
    for (int i = 0; i < output_registers; ++i) {
      state.output[i] = 0.f;
    }
    load_fragments(fragments, query);
    KeyStage taken = stages.take();
    issue_scores(taken);
    wait_for_products<0>();
    finish_scores(taken);
    begin_softmax(state, scores, scale);
    stages.release_keys(taken);
    pack_probabilities(probabilities, scores);
#pragma unroll 1
    while (!taken.last) {
      KeyStage next;
      if constexpr (config::overlap) {
        // The softmax of a block runs while the matrix unit multiplies the probabilities of the block before.
        next = stages.take();
        issue_scores(next);
        issue_output(taken);
        stages.look_ahead();
        wait_for_products<1>();
      } else {
        issue_output(taken);
        finish_output(taken);
        next = stages.take();
        issue_scores(next);
        wait_for_products<0>();
      }
      finish_scores(next);
      const Rescale rescale = next_probabilities(next);
      stages.release_keys(next);
      if constexpr (config::overlap) {
        finish_output(taken);
      }
      pack_probabilities(probabilities, scores);
      if (rescale.needed) {
        rescale_output(state, rescale);
      }
      taken = next;
    }
    issue_output(taken);
    finish_output(taken);
    store_result(arguments, shared, state, own_rows, consumer);
  }
  if (thread_index() % warpgroup_size == 0) {
    wait_for_box_copies();
  }
}

} // namespace tilewright
