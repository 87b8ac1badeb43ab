// What a warp does with its query rows: the two matrix products and the online softmax between them. Row r of a group
// of 16 belongs to lane 4 (r % 8) and the next three, half r / 8.
#pragma once

#include "config.cuh"
#include "device/copy.cuh"
#include "device/math.cuh"
#include "device/matrix.cuh"
#include "device/shared_tile.cuh"

namespace tilewright {

using Element = config::Element;

constexpr int warp_rows = config::block_q / config::warps;
constexpr int row_groups = warp_rows / 16;       // 16 rows: the matrix instruction's m
constexpr int key_groups = config::block_k / 16; // 16 keys: its k in P V, and two of its n in Q K^T
constexpr int depth_groups = config::head_dim / 16;
constexpr int score_columns = config::block_k / 8; // fragments of 8 columns
constexpr int output_columns = config::head_dim / 8;
static_assert(warp_rows == 16 || warp_rows == 32, "a warp owns 16 or 32 query rows");

using QueryShared = SharedTile<config::block_q, config::head_dim>;
using KeyShared = SharedTile<config::block_k, config::head_dim>;

using Scores = float[row_groups][score_columns][4];
using Probabilities = uint32_t[row_groups][key_groups][4]; // as the operand of P V
using RowValues = float[row_groups][2];                    // one for each row that a thread has a part of

/// The exponents' offset before the first valid key: finite, so that no NaN arises.
constexpr float no_maximum = 3.402823466e38f;

/// What a warp keeps of its rows from one key block to the next.
struct RowState {
  RowValues offset; // exponents are scale_log2 * score + offset: -scale_log2 * a score that was the row's maximum
  RowValues sum;    // of this thread's exponentials
  float output[row_groups][output_columns][4];

  TILEWRIGHT_DEVICE bool has_keys(int group, int half) const { return offset[group][half] != no_maximum; }
};

TILEWRIGHT_DEVICE void clear(RowState& state) {
#pragma unroll
  for (int group = 0; group < row_groups; ++group) {
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      state.offset[group][half] = no_maximum;
      state.sum[group][half] = 0.f;
    }
#pragma unroll
    for (int column = 0; column < output_columns; ++column) {
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        state.output[group][column][i] = 0.f;
      }
    }
  }
}

/// Where a lane finds its rows of the operands in shared memory, from a tile's base.
struct OperandPlaces {
  uint32_t rows;    // 16 rows by two chunks, in the order of operand a, and of b transposed: queries and values
  uint32_t columns; // in the order of operand b: keys

  TILEWRIGHT_DEVICE explicit OperandPlaces(uint32_t lane)
      : rows(KeyShared::offset(static_cast<int>(lane % 16), static_cast<int>(lane / 16))),
        columns(KeyShared::offset(static_cast<int>(lane % 8 + lane / 16 * 8), static_cast<int>(lane / 8 % 2))) {}
};

/// scores = Q K^T for the warp's rows and a block of keys.
/// warp_query: from the warp's first row on.
TILEWRIGHT_DEVICE void multiply_query_key(Scores& scores, QueryShared warp_query, KeyShared key,
                                          const OperandPlaces& places) {
#pragma unroll
  for (int group = 0; group < row_groups; ++group) {
#pragma unroll
    for (int column = 0; column < score_columns; ++column) {
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        scores[group][column][i] = 0.f;
      }
    }
  }
#pragma unroll
  for (int depth = 0; depth < depth_groups; ++depth) {
    uint32_t a[row_groups][4];
#pragma unroll
    for (int group = 0; group < row_groups; ++group) {
      load_matrices(a[group], warp_query.base + QueryShared::moved(places.rows, 16 * group, 2 * depth));
    }
#pragma unroll
    for (int keys = 0; keys < key_groups; ++keys) {
      uint32_t b[4];
      load_matrices(b, key.base + KeyShared::moved(places.columns, 16 * keys, 2 * depth));
#pragma unroll
      for (int group = 0; group < row_groups; ++group) {
        multiply_add<Element>(scores[group][2 * keys], a[group], b[0], b[1]);
        multiply_add<Element>(scores[group][2 * keys + 1], a[group], b[2], b[3]);
      }
    }
  }
}

/// Scores of keys that are not valid become -inf. valid: a bit for each key of the block.
TILEWRIGHT_DEVICE void mask_scores(Scores& scores, uint32_t valid) {
  if (valid == all_lanes) {
    return;
  }
  // Opaque: kept around the main loop, the lane's place would hold a register.
  const uint32_t of_lane = valid >> (static_cast<uint32_t>(opaque(lane_index())) % 4 * 2);
#pragma unroll
  for (int column = 0; column < score_columns; ++column) {
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      if ((of_lane >> (column * 8 + i) & 1) == 0) {
#pragma unroll
        for (int group = 0; group < row_groups; ++group) {
          scores[group][column][i] = negative_infinity();
          scores[group][column][i + 2] = negative_infinity();
        }
      }
    }
  }
}

/// The thread's largest score of each row.
TILEWRIGHT_DEVICE void find_largest(RowValues& largest, const Scores& scores) {
#pragma unroll
  for (int group = 0; group < row_groups; ++group) {
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      largest[group][half] = maximum(scores[group][0][2 * half], scores[group][0][2 * half + 1]);
#pragma unroll
      for (int column = 1; column < score_columns; ++column) {
        const float* pair = &scores[group][column][2 * half];
        largest[group][half] = maximum(largest[group][half], maximum(pair[0], pair[1]));
      }
    }
  }
}

/// Moves the rows' offsets where an exponent exceeds 0 by more than the schedule tolerates, and rescales what was
/// accumulated with the old ones. largest: of this thread's scores.
TILEWRIGHT_DEVICE void follow_maximum(RowState& state, RowValues& largest, float scale) {
  // Exponentials of up to 2^8 lose nothing in either element type, and most blocks then leave the output alone.
  constexpr float tolerated_growth = config::softmax_lazy ? 8.f : 0.f;
  bool grows = false;
#pragma unroll
  for (int group = 0; group < row_groups; ++group) {
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      grows = grows || fused_multiply_add(largest[group][half], scale, state.offset[group][half]) > tolerated_growth;
    }
  }
  // Only where the rows' threads must agree, since one of them moves, do they look at each other's columns.
  if (vote(grows) == 0) [[likely]] {
    return;
  }
#pragma unroll
  for (int group = 0; group < row_groups; ++group) {
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      float& row_largest = largest[group][half];
      row_largest = maximum(row_largest, shuffle_xor(row_largest, 1));
      row_largest = maximum(row_largest, shuffle_xor(row_largest, 2));
      const float offset = -maximum(-state.offset[group][half], row_largest * scale);
      const float rescale = exp2_approximate(offset - state.offset[group][half]);
      state.offset[group][half] = offset;
      state.sum[group][half] *= rescale;
#pragma unroll
      for (int column = 0; column < output_columns; ++column) {
        state.output[group][column][2 * half] *= rescale;
        state.output[group][column][2 * half + 1] *= rescale;
      }
    }
  }
}

/// probabilities = exp2(scale scores + offsets), which are added to the row sums.
TILEWRIGHT_DEVICE void exponentiate(Probabilities& probabilities, RowState& state, const Scores& scores, float scale) {
#pragma unroll
  for (int column = 0; column < score_columns; ++column) {
#pragma unroll
    for (int group = 0; group < row_groups; ++group) {
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        const float offset = state.offset[group][half];
        const float* pair = &scores[group][column][2 * half];
        const float first = exp2_approximate(fused_multiply_add(pair[0], scale, offset));
        const float second = exp2_approximate(fused_multiply_add(pair[1], scale, offset));
        state.sum[group][half] += first + second;
        // The accumulator's layout of two 8-column fragments is the layout of one 16-column operand.
        probabilities[group][column / 2][column % 2 * 2 + half] = pack<Element>(first, second);
      }
    }
  }
}

/// output += P V for the warp's rows and a block of keys.
TILEWRIGHT_DEVICE void multiply_probability_value(RowState& state, const Probabilities& probabilities, KeyShared value,
                                                  const OperandPlaces& places) {
#pragma unroll
  for (int keys = 0; keys < key_groups; ++keys) {
#pragma unroll
    for (int depth = 0; depth < depth_groups; ++depth) {
      uint32_t b[4];
      load_matrices_transposed(b, value.base + KeyShared::moved(places.rows, 16 * keys, 2 * depth));
#pragma unroll
      for (int group = 0; group < row_groups; ++group) {
        multiply_add<Element>(state.output[group][2 * depth], probabilities[group][keys], b[0], b[1]);
        multiply_add<Element>(state.output[group][2 * depth + 1], probabilities[group][keys], b[2], b[3]);
      }
    }
  }
}

} // namespace tilewright
