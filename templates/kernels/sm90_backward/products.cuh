// What both backward kernels compute with: stages, products, and a gradient's way to memory.
#pragma once

#include "device/math.cuh"
#include "device/warpgroup_matrix.cuh"
#include "kernels/sm90/boxes.cuh"
#include "kernels/sm90_backward/shared_memory.cuh"
#include "kernels/tile_shares.cuh"

namespace tilewright {

using Scores = float[step_rows / 2];          // own rows x rows of a step
using Packed = uint32_t[step_rows / 4];       // the same, two 16-bit elements each
using Gradient = float[config::head_dim / 2]; // own rows x head_dim

TILEWRIGHT_DEVICE void synchronize_consumer(int consumer) { synchronize_threads(1 + consumer, warpgroup_size); }

/// A step that has arrived.
struct Stage {
  int stage;
  bool last;   // of the item
  bool masked; // some rows do not exist
};

/// What one consumer sees of the ring of stages.
class Stages {
public:
  TILEWRIGHT_DEVICE Stages(const Shared& shared, int consumer) : shared_(shared), consumer_(consumer) {}

  /// Waits for the next step of this consumer.
  TILEWRIGHT_DEVICE Stage take() {
    uint32_t note;
    RingPlace from = place_;
    if constexpr (merged) {
      wait(shared_.queue_full(consumer_, place_.stage), place_.parity);
      note = uniform_shared_word(shared_.queue_entry(consumer_, place_.stage));
      from = queued_place(note);
      wait(shared_.full(from.stage), from.parity);
    } else {
      wait(shared_.full(from.stage), from.parity);
      note = uniform_shared_word(shared_.note(from.stage));
    }
    place_.advance();
    return {from.stage, (note & note_last) != 0, TileRows<WalkedTile>::may_be_partial && (note & note_masked) != 0};
  }

  TILEWRIGHT_DEVICE void release(const Stage& taken) const {
    if (lane_index() == 0) {
      arrive(shared_.empty(taken.stage));
    }
  }

private:
  const Shared& shared_;
  int consumer_;
  RingPlace place_; // merged: in the queue
};

/// Issues d = a b^T.
TILEWRIGHT_DEVICE void multiply_rows(Scores& d, RowsShared a, RowsShared b) {
#pragma unroll
  for (int depth = 0; depth < config::head_dim; depth += 16) {
    constexpr int panel_columns = RowsShared::panel_columns;
    const uint32_t offset = depth / panel_columns * RowsShared::panel_bytes + depth % panel_columns * element_bytes;
    const SharedMatrix left = SharedMatrix::k_in_columns(a.base) + offset;
    const SharedMatrix right = SharedMatrix::k_in_columns(b.base) + offset;
    if (depth == 0) {
      multiply_shared<Element, false>(d, left, right);
    } else {
      multiply_shared<Element, true>(d, left, right);
    }
  }
  commit_products();
}

/// Issues d += a b.
TILEWRIGHT_DEVICE void multiply_packed(Gradient& d, const Packed& a, RowsShared b) {
#pragma unroll
  for (int row = 0; row < step_rows; row += 16) {
    const SharedMatrix right =
        SharedMatrix::k_in_rows(b.base, RowsShared::panel_bytes) + static_cast<uint32_t>(row * RowsShared::row_bytes);
    multiply_registers<Element, true>(d, &a[row / 4], right);
  }
  commit_products();
}

/// Issues scores = own[0] walked[0]^T and score_gradients = own[1] walked[1]^T, and waits for the scores alone.
TILEWRIGHT_DEVICE void issue_score_products(Scores& scores, Scores& score_gradients, const Shared& shared, int consumer,
                                            int stage) {
  pin(scores);
  pin(score_gradients);
  fence_products();
  multiply_rows(scores, shared.own(consumer, 0), shared.walked(stage, 0));
  multiply_rows(score_gradients, shared.own(consumer, 1), shared.walked(stage, 1));
  wait_for_products<1>();
  pin(scores);
}

TILEWRIGHT_DEVICE void pack_scores(Packed& packed, const Scores& scores) {
#pragma unroll
  for (int i = 0; i < step_rows / 4; ++i) {
    packed[i] = pack<Element>(scores[2 * i], scores[2 * i + 1]);
  }
}

TILEWRIGHT_DEVICE void clear(Gradient& gradient) {
#pragma unroll
  for (int i = 0; i < config::head_dim / 2; ++i) {
    gradient[i] = 0.f;
  }
}

/// Zeros the rows of a stage that do not exist, of both tensors. All consumers do, each before its own products.
TILEWRIGHT_DEVICE void clear_missing_rows(const Shared& shared, int stage, int consumer) {
  constexpr int chunks = RowsShared::chunks_per_row;
  for (int i = thread_index() % warpgroup_size; i < RowsShared::rows * chunks; i += warpgroup_size) {
    const int row = i / chunks;
    if ((load_shared_word(shared.mask(stage) + row / 32 * 4) >> (row % 32) & 1) == 0) {
      store_shared(shared.walked(stage, 0).chunk(row, i % chunks), Bytes16{});
      store_shared(shared.walked(stage, 1).chunk(row, i % chunks), Bytes16{});
    }
  }
  fence_shared_for_copies();
  synchronize_consumer(consumer);
}

/// One gradient of a consumer's rows, times factor, and the rows' share (tile_shares.cuh) to its own rows' shared
/// memory; rows that are padding become 0.
TILEWRIGHT_DEVICE void stage_gradient(RowsShared staging, const Gradient& gradient, float factor, const float* share,
                                      const OwnBlock& own, int first_row, int thread) {
  const int lane = thread % warp_size, warp = thread / warp_size;
  // Replaced, not multiplied by 0: a padding row's gradient may be NaN by now.
  const bool valid[2] = {own.valid(first_row + warp * 16 + lane / 4), own.valid(first_row + warp * 16 + 8 + lane / 4)};
  const auto sum = [&](int i, FloatPair added) { // of two columns of one row
    return valid[i / 2 % 2] ? pack<Element>(fused_multiply_add(gradient[i], factor, added.first),
                                            fused_multiply_add(gradient[i + 1], factor, added.second))
                            : 0u;
  };
  const int row = warp * 16 + lane % 16; // store_matrices: lanes give the addresses of rows, 8 for each matrix
#pragma unroll
  for (int i = 0; i < config::head_dim / 2; i += 8) { // registers: 16 columns of two rows
    const FloatPair left = share_columns(share, 2 * i + lane % 4 * 2),
                    right = share_columns(share, 2 * i + 8 + lane % 4 * 2);
    store_matrices(staging.chunk(row, i / 4 + lane / 16), sum(i, left), sum(i + 2, left), sum(i + 4, right),
                   sum(i + 6, right));
  }
}

/// What the block's rows get in addition to their gradient number `which`.
TILEWRIGHT_DEVICE const float* own_share(const KernelArguments& arguments, const OwnBlock& own, int which) {
  return share_of<PatternParameters>(gradient_shares(arguments, which), own, own_heads(arguments), own_grid(arguments));
}

/// From shared memory to the gradients' tensors; hands the rows' place back. All threads, after staging.
TILEWRIGHT_DEVICE void store_gradients(const KernelArguments& arguments, const Shared& shared,
                                       const OwnRows<Shared>& own_rows, const OwnBlock& own, int first_row,
                                       int consumer, int thread) {
  fence_shared_for_copies();
  synchronize_consumer(consumer);
  if (thread != 0) {
    return;
  }
#pragma unroll
  for (int which = 0; which < gradients; ++which) {
    const HeadBoxes boxes(arguments.video.gradient[which], arguments.text.gradient[which],
                          arguments.gradient_heads[which], own.batch, own_head(own));
    const BoxOrigin origin = boxes.origin(own.text, own.position, own.rows, own.first_row + first_row);
    const RowsShared staging = shared.own(consumer, which);
#pragma unroll
    for (int panel = 0; panel < panels; ++panel) {
      copy_box_to_global(boxes.map(own.text), shifted(origin, panel * RowsShared::panel_columns),
                         staging.base + panel * RowsShared::panel_bytes);
    }
  }
  commit_box_copies();
  wait_for_box_sources();
  own_rows.hand_back();
}

} // namespace tilewright
