// The running softmax of a consumer's rows. A thread holds two rows, row i / 4 of its warp's 16 (i: its lane) and the
// row 8 further down, and of each the columns that the accumulator's layout gives it (device/warpgroup_matrix.cuh).
// Registers 4c and 4c + 1 are of the first row, 4c + 2 and 4c + 3 of the second.
#pragma once

#include "device/math.cuh"
#include "device/warpgroup_matrix.cuh"
#include "kernels/sm90/shared_memory.cuh"

namespace tilewright {

constexpr int score_registers = config::block_k / 2;
constexpr int output_registers = config::head_dim / 2;
constexpr int probability_registers = config::block_k / 4; // two 16-bit elements each

using Scores = float[score_registers];
using Probabilities = uint32_t[probability_registers];

struct RowState {
  float reference[2]; // what exponents are taken against: at or near the largest scaled score so far
  float sum[2];       // of this thread's exponentials
  float output[output_registers];
};

/// The factors that bring what was summed up before to a new reference.
struct Rescale {
  float factor[2] = {1.f, 1.f};
  bool needed = false;
};

/// Scores of keys that do not exist become -inf. The words of the mask hold a bit for each key.
///
/// Keys are looked at eight at a time, all lanes the same: mostly all of them exist, or a whole row of a tile does not,
/// and a select for each score would cost as much as the exponentials.
TILEWRIGHT_DEVICE void mask_scores(Scores& scores, SharedAddress mask) {
#pragma unroll
  for (int word = 0; word < mask_words; ++word) {
    const uint32_t keys = uniform(load_shared_word(mask + word * 4));
    const uint32_t of_lane = keys >> (lane_index() % 4 * 2);
#pragma unroll
    for (int column = 0; column < 32 / 8; ++column) {
      if ((keys >> (column * 8) & 0xff) == 0xff) {
        continue;
      }
#pragma unroll
      for (int i = 0; i < 2; ++i) {
        const bool exists = (of_lane >> (column * 8 + i) & 1) != 0;
        float* pair = &scores[(word * 4 + column) * 4 + i];
        pair[0] = exists ? pair[0] : negative_infinity();
        pair[2] = exists ? pair[2] : negative_infinity();
      }
    }
  }
  synchronize_warp(); // all have read the mask before one lane releases its stage
}

/// The largest scaled score of each of the thread's rows, in all four threads that share the row.
TILEWRIGHT_DEVICE void row_maxima(float (&largest)[2], const Scores& scores, float scale) {
#pragma unroll
  for (int row = 0; row < 2; ++row) {
    float even = scores[2 * row], odd = scores[2 * row + 1]; // two chains, for the sake of latency
#pragma unroll
    for (int i = 4; i < score_registers; i += 4) {
      even = maximum(even, scores[i + 2 * row]);
      odd = maximum(odd, scores[i + 2 * row + 1]);
    }
    float all = maximum(even, odd);
    all = maximum(all, shuffle_xor(all, 1));
    all = maximum(all, shuffle_xor(all, 2));
    largest[row] = all * scale;
  }
}

/// Scores become exp2(scale * score - reference); their sums per row, of this thread alone.
TILEWRIGHT_DEVICE void exponentiate(Scores& scores, float (&sums)[2], const float (&reference)[2], float scale) {
  sums[0] = sums[1] = 0.f;
#pragma unroll
  for (int i = 0; i < score_registers; i += 4) {
#pragma unroll
    for (int j = 0; j < 4; ++j) {
      scores[i + j] = exp2_approximate(fused_multiply_add(scores[i + j], scale, -reference[j / 2]));
    }
#pragma unroll
    for (int j = 0; j < 4; ++j) {
      sums[j % 2] += scores[i + j % 2 * 2 + j / 2]; // the rows by turns
    }
  }
}

/// Takes the exact running maxima as the reference and rescales the sums.
TILEWRIGHT_DEVICE void follow_maxima(RowState& state, Rescale& rescale, const float (&largest)[2]) {
#pragma unroll
  for (int row = 0; row < 2; ++row) {
    const float reference = maximum(state.reference[row], largest[row]);
    rescale.factor[row] = exp2_approximate(state.reference[row] - reference);
    state.reference[row] = reference;
    state.sum[row] *= rescale.factor[row];
  }
  rescale.needed = true;
}

TILEWRIGHT_DEVICE void rescale_output(RowState& state, const Rescale& rescale) {
#pragma unroll
  for (int i = 0; i < output_registers; ++i) {
    state.output[i] *= rescale.factor[i / 2 % 2];
  }
}

TILEWRIGHT_DEVICE void pack_probabilities(Probabilities& probabilities, const Scores& scores) {
#pragma unroll
  for (int i = 0; i < probability_registers; ++i) {
    probabilities[i] = pack<Element>(scores[2 * i], scores[2 * i + 1]);
  }
}

/// The first key block of a row: its maximum is the reference.
TILEWRIGHT_DEVICE void begin_softmax(RowState& state, Scores& scores, float scale) {
  row_maxima(state.reference, scores, scale);
  exponentiate(scores, state.sum, state.reference, scale);
}

/// Every further block. With softmax_fixed the reference stays what it was, without looking for the maximum, as long as
/// the block's exponentials stay below `exponential_limit` in every row: else repeat() has to bring the raw scores once
/// more and the reference becomes the exact maximum. Exact either way. lazy: the reference follows only where the
/// maximum has grown by more than lazy_growth; else it always follows.
///
/// What the limits guard: probabilities in fp16 overflow at 2^16; sums and outputs in float32 at 2^128.
constexpr float exponential_limit = is_bfloat16<Element> ? 1152921504606846976.f : 32768.f; // 2^60, 2^15
constexpr float lazy_growth = 8.f;                                                          // a power of 2

template <class AnyOfConsumer, class Repeat>
TILEWRIGHT_DEVICE Rescale continue_softmax(RowState& state, Scores& scores, float scale, AnyOfConsumer any_of_consumer,
                                           Repeat repeat) {
  Rescale rescale;
  float sums[2], largest[2];
  if constexpr (config::softmax_fixed) {
    exponentiate(scores, sums, state.reference, scale);
    pin(scores);
    const bool below = sums[0] < exponential_limit && sums[1] < exponential_limit; // false for NaN too
    if (any_of_consumer(!below)) {
      repeat();
      row_maxima(largest, scores, scale);
      follow_maxima(state, rescale, largest);
      exponentiate(scores, sums, state.reference, scale);
      pin(scores);
    }
  } else {
    row_maxima(largest, scores, scale);
    if (!config::softmax_lazy ||
        vote(largest[0] > state.reference[0] + lazy_growth || largest[1] > state.reference[1] + lazy_growth) != 0) {
      follow_maxima(state, rescale, largest);
    }
    exponentiate(scores, sums, state.reference, scale);
    pin(scores);
  }
  state.sum[0] += sums[0];
  state.sum[1] += sums[1];
  return rescale;
}

} // namespace tilewright
