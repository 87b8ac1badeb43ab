// The computing warpgroups of attention_backward_query. Each owns 64 queries and computes, for each 64 keys,
//     P = exp2(scale Q K^T + exponent)    dS = P (dO V^T - delta)    dQ += dS K
// where exponent and delta are of the query, that is, of the row. dS goes from registers into the last product.
#pragma once

#include "kernels/sm90_backward/products.cuh"

namespace tilewright {

/// Of a thread's two rows, i / 4 of its warp's 16 (i: its lane) and the row 8 further down.
struct OwnStatistics {
  float exponent[2], delta[2];
};

TILEWRIGHT_DEVICE OwnStatistics own_statistics(const KernelArguments& arguments, int index, int first_row) {
  const RowStatistics& from = arguments.backward.backward.statistics;
  const OwnBlock own = own_block(arguments, index);
  const int64_t first = own.batch * from.batch_stride + own.head * from.head_stride + statistics_row(own, from);
  const int thread = opaque(thread_index()) % warpgroup_size;
  OwnStatistics statistics;
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    const int row = first_row + thread / warp_size * 16 + half * 8 + thread % warp_size / 4;
    const bool valid = own.valid(row); // beyond the rows that exist there may be no statistics
    statistics.exponent[half] = valid ? load_constant(from.exponents + first + row) : negative_infinity();
    statistics.delta[half] = valid ? load_constant(from.deltas + first + row) : 0.f;
  }
  return statistics;
}

/// Probabilities of keys that do not exist become 0. The words of the mask hold a bit for each key.
TILEWRIGHT_DEVICE void mask_probabilities(Scores& probabilities, SharedAddress mask) {
#pragma unroll
  for (int word = 0; word < mask_words; ++word) {
    const uint32_t bits = load_shared_word(mask + word * 4) >> (lane_index() % 4 * 2);
#pragma unroll
    for (int column = 0; column < 32 / 8; ++column) {
#pragma unroll
      for (int i = 0; i < 2; ++i) {
        const bool exists = (bits >> (column * 8 + i) & 1) != 0;
        float* pair = &probabilities[(word * 4 + column) * 4 + i];
        pair[0] = exists ? pair[0] : 0.f;
        pair[2] = exists ? pair[2] : 0.f;
      }
    }
  }
  synchronize_warp(); // all have read the mask before one lane releases its stage
}

TILEWRIGHT_DEVICE void consume(const KernelArguments& arguments, const Shared& shared, int consumer) {
  const float scale = arguments.backward.call.attention.scale_log2;
  const RowsShared query = shared.own(consumer, 0);
  const int first_row = merged ? 0 : consumer * consumer_rows;
  Stages stages(shared, consumer);
  Gradient query_gradient;
  Scores scores, score_gradients;
  Packed packed_gradients;

  OwnRows own_rows(shared, consumer);
  while (own_rows.next() != no_more_rows) {
    const OwnStatistics statistics = own_statistics(arguments, own_rows.block(), first_row);
    clear(query_gradient);
    Stage taken;
#pragma unroll 1
    do {
      taken = stages.take();
      const RowsShared key = shared.walked(taken.stage, 0);
      if (rows_may_be_padding && taken.masked) {
        clear_missing_rows(shared, taken.stage, consumer);
      }
      issue_score_products(scores, score_gradients, shared, consumer, taken.stage);
#pragma unroll
      for (int i = 0; i < step_rows / 2; ++i) {
        scores[i] = exp2_approximate(fused_multiply_add(scores[i], scale, statistics.exponent[i / 2 % 2]));
      }
      if (taken.masked) {
        mask_probabilities(scores, shared.mask(taken.stage));
      }
      pin(scores); // the exponentials run beside dO V^T
      wait_for_products<0>();
      pin(score_gradients);
#pragma unroll
      for (int i = 0; i < step_rows / 2; ++i) {
        score_gradients[i] = scores[i] * (score_gradients[i] - statistics.delta[i / 2 % 2]);
      }
      pack_scores(packed_gradients, score_gradients);
      pin(query_gradient);
      pin(packed_gradients);
      fence_products();
      multiply_packed(query_gradient, packed_gradients, key);
      wait_for_products<0>();
      pin(query_gradient);
      pin(packed_gradients);
      stages.release(taken);
    } while (!taken.last);

    const int thread = opaque(thread_index()) % warpgroup_size;
    const OwnBlock own = own_block(arguments, own_rows.block());
    stage_gradient(query, query_gradient, arguments.backward.backward.scale, own_share(arguments, own, 0), own,
                   first_row, thread);
    store_gradients(arguments, shared, own_rows, own, first_row, consumer, thread);
  }
  if (thread_index() % warpgroup_size == 0) {
    wait_for_box_copies();
  }
}

} // namespace tilewright
