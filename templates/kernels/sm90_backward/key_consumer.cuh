// The computing warpgroups of attention_backward_key. Each owns 64 keys and computes, for each 64 queries that see
// them,
//     P^T = exp2(scale K Q^T + exponent)      dV += P^T dO
//     dS^T = P^T (V dO^T - delta)             dK += dS^T Q
// where exponent and delta are of the query, that is, of the column. P^T and dS^T go from registers into the second
// products as they are: the accumulator's layout is the operand's.
#pragma once

#include "kernels/sm90_backward/products.cuh"

namespace tilewright {

/// The two columns of 8 column + ... that this thread's registers hold.
TILEWRIGHT_DEVICE FloatPair of_columns(SharedAddress statistics, int column) {
  return load_shared_pair(statistics + column * 8 * 4 + lane_index() % 4 * 8);
}

TILEWRIGHT_DEVICE void exponentiate_columns(Scores& scores, SharedAddress exponents, float scale) {
#pragma unroll
  for (int column = 0; column < step_rows / 8; ++column) {
    const FloatPair exponent = of_columns(exponents, column);
    float* four = &scores[4 * column];
    four[0] = exp2_approximate(fused_multiply_add(four[0], scale, exponent.first));
    four[1] = exp2_approximate(fused_multiply_add(four[1], scale, exponent.second));
    four[2] = exp2_approximate(fused_multiply_add(four[2], scale, exponent.first));
    four[3] = exp2_approximate(fused_multiply_add(four[3], scale, exponent.second));
  }
}

/// gradients = probabilities * (gradients - delta).
TILEWRIGHT_DEVICE void differentiate_columns(Scores& gradients_, const Scores& probabilities, SharedAddress deltas) {
#pragma unroll
  for (int column = 0; column < step_rows / 8; ++column) {
    const FloatPair delta = of_columns(deltas, column);
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      float& gradient = gradients_[4 * column + i];
      gradient = probabilities[4 * column + i] * (gradient - (i % 2 == 0 ? delta.first : delta.second));
    }
  }
}

TILEWRIGHT_DEVICE void consume(const KernelArguments& arguments, const Shared& shared, int consumer) {
  const float scale = arguments.backward.call.attention.scale_log2;
  const RowsShared key = shared.own(consumer, 0), value = shared.own(consumer, 1);
  Stages stages(shared, consumer);
  Gradient key_gradient, value_gradient;
  Scores scores, score_gradients;
  Packed probabilities, packed_gradients;

  OwnRows own_rows(shared, consumer);
  while (own_rows.next() != no_more_rows) {
    clear(key_gradient);
    clear(value_gradient);
    Stage taken;
#pragma unroll 1
    do {
      taken = stages.take();
      const RowsShared query = shared.walked(taken.stage, 0), output_gradient = shared.walked(taken.stage, 1);
      if (rows_may_be_padding && taken.masked) {
        clear_missing_rows(shared, taken.stage, consumer);
      }
      issue_score_products(scores, score_gradients, shared, consumer, taken.stage);
      exponentiate_columns(scores, shared.exponents(taken.stage), scale); // beside V dO^T
      pin(scores);
      wait_for_products<0>();
      pin(score_gradients);
      differentiate_columns(score_gradients, scores, shared.deltas(taken.stage));
      pack_scores(probabilities, scores);
      pack_scores(packed_gradients, score_gradients);
      pin(value_gradient);
      pin(probabilities);
      pin(key_gradient);
      pin(packed_gradients);
      fence_products();
      multiply_packed(value_gradient, probabilities, output_gradient);
      multiply_packed(key_gradient, packed_gradients, query);
      wait_for_products<0>();
      pin(value_gradient);
      pin(probabilities);
      pin(key_gradient);
      pin(packed_gradients);
      synchronize_warp(); // all lanes have read the statistics
      stages.release(taken);
    } while (!taken.last);

    const int thread = opaque(thread_index()) % warpgroup_size;
    const OwnBlock own = own_block(arguments, own_rows.block());
    const int first_row = merged ? 0 : consumer * consumer_rows;
    stage_gradient(key, key_gradient, arguments.backward.backward.scale, own_share(arguments, own, 0), own, first_row,
                   thread);
    stage_gradient(value, value_gradient, 1.f, own_share(arguments, own, 1), own, first_row, thread);
    store_gradients(arguments, shared, own_rows, own, first_row, consumer, thread);
  }
  if (thread_index() % warpgroup_size == 0) {
    wait_for_box_copies();
  }
}

} // namespace tilewright
