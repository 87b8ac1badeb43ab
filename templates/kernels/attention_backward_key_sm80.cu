// dK and dV for every GPU from sm_80 up: mma.sync, ldmatrix, cp.async. One thread block computes config::block_k key
// rows of one key/value head against the query blocks that see them, of all query heads that share it:
//     P = exp2(scale_log2 K Q^T + exponents)    dV += P dO
//     dS = P (V dO^T - deltas)                  dK += dS Q, times scale in the end
//
// Each warp owns 16 key rows: their keys and values stay in registers, and P and dS pass from product to product in
// registers. Queries and dO pass through a ring of config::stages shared-memory stages, whose place the thread block's
// own rows take at the beginning and their gradients in the end. Nothing is masked: rows that are no queries have P = 0
// by their exponent, and rows that are no keys only touch gradients that are not stored.
#include "inverse_pattern.cuh"

#include "kernels/sm80/backward.cuh"

namespace tilewright {

using KernelArguments = BackwardArguments;

static_assert(config::block_k == 16 * config::warps, "a warp owns 16 key rows");
constexpr int narrow_step = 16; // rows of a stage whose scores are in registers at a time: 32 spill at head_dim 128
constexpr int narrow_columns = narrow_step / 8;
static_assert(config::block_q % narrow_step == 0, "a stage is a whole number of steps");

using KeyShared = SharedTile<config::block_k, config::head_dim>;
using QueryShared = SharedTile<config::block_q, config::head_dim>;
constexpr int stage_bytes = 2 * QueryShared::bytes; // queries, then dO
constexpr int statistics_bytes = config::block_q * static_cast<int>(sizeof(float));

constexpr int own_bytes = 2 * KeyShared::bytes;
constexpr int statistics_offset = own_bytes > config::stages* stage_bytes ? own_bytes : config::stages* stage_bytes;
constexpr int key_offset = statistics_offset + config::stages * 2 * statistics_bytes;
constexpr int walks_offset = key_offset + parked_bytes<KeyBlock>;
constexpr int walk_bytes = parked_bytes<QueryBlocks::State>;
static_assert(walks_offset + config::stages * walk_bytes <= config::shared_bytes,
              "the schedule's shared memory must hold all of it");

TILEWRIGHT_DEVICE QueryShared query_stage(int stage) {
  return {shared_memory() + static_cast<uint32_t>(stage) * stage_bytes};
}
TILEWRIGHT_DEVICE QueryShared gradient_stage(int stage) { return {query_stage(stage).base + QueryShared::bytes}; }
TILEWRIGHT_DEVICE SharedAddress exponents_stage(int stage) {
  return shared_memory() + statistics_offset + static_cast<uint32_t>(stage) * 2 * statistics_bytes;
}
TILEWRIGHT_DEVICE SharedAddress deltas_stage(int stage) { return exponents_stage(stage) + statistics_bytes; }
TILEWRIGHT_DEVICE SharedAddress walk_place(int stage) {
  return shared_memory() + walks_offset + static_cast<uint32_t>(stage) * walk_bytes;
}

TILEWRIGHT_DEVICE void load_statistics(int stage, const RowStatistics& statistics, int batch,
                                       const QueryBlocks& queries) {
  constexpr int copies = statistics_bytes / copy_bytes, floats = copy_bytes / static_cast<int>(sizeof(float));
  static_assert(2 * copies <= threads, "a thread copies 16 bytes of one of the two arrays");
  const int copy = opaque(thread_index());
  if (copy < 2 * copies) {
    const float* rows = (copy < copies ? statistics.exponents : statistics.deltas) + batch * statistics.batch_stride +
                        queries.head() * statistics.head_stride + queries.statistics_row();
    copy_async(exponents_stage(stage) + copy * copy_bytes, rows + copy % copies * floats, true);
  }
}

/// The walk's present step into a stage.
TILEWRIGHT_DEVICE void load_queries(int stage, const BackwardArguments& arguments, int batch,
                                    const QueryBlocks& queries) {
  const AttentionParameters& p = arguments.call.attention;
  const BackwardParameters& backward = arguments.backward;
  load_step(query_stage(stage), head_of(p.query, p.query_strides, batch, queries.head()), p.query_strides.token,
            head_of(backward.output_gradient, backward.output_gradient_strides, batch, queries.head()),
            backward.output_gradient_strides.token, queries.rows(), queries.first_row(),
            [&](int row) { return queries.valid(row); });
  load_statistics(stage, backward.statistics, batch, queries);
}

/// The statistics of the queries that the lane holds column `column` and the next of.
TILEWRIGHT_DEVICE FloatPair statistics_of(SharedAddress rows, int first_query, int column, int lane) {
  return load_shared_pair(rows + static_cast<uint32_t>(first_query + column * 8 + lane % 4 * 2) * sizeof(float));
}

/// Scores become probabilities.
TILEWRIGHT_DEVICE void exponentiate(Scores<1, narrow_columns>& scores, SharedAddress exponents, int first_query,
                                    float scale_log2, int lane) {
#pragma unroll
  for (int column = 0; column < narrow_columns; ++column) {
    const FloatPair exponent = statistics_of(exponents, first_query, column, lane);
    float(&score)[4] = scores[0][column];
    score[0] = exp2_approximate(fused_multiply_add(score[0], scale_log2, exponent.first));
    score[1] = exp2_approximate(fused_multiply_add(score[1], scale_log2, exponent.second));
    score[2] = exp2_approximate(fused_multiply_add(score[2], scale_log2, exponent.first));
    score[3] = exp2_approximate(fused_multiply_add(score[3], scale_log2, exponent.second));
  }
}

/// Probabilities become the scores' gradients, given those of the probabilities.
TILEWRIGHT_DEVICE void differentiate(Scores<1, narrow_columns>& scores,
                                     const Scores<1, narrow_columns>& of_probabilities, SharedAddress deltas,
                                     int first_query, int lane) {
#pragma unroll
  for (int column = 0; column < narrow_columns; ++column) {
    const FloatPair delta = statistics_of(deltas, first_query, column, lane);
    float(&score)[4] = scores[0][column];
    score[0] *= of_probabilities[0][column][0] - delta.first;
    score[1] *= of_probabilities[0][column][1] - delta.second;
    score[2] *= of_probabilities[0][column][2] - delta.first;
    score[3] *= of_probabilities[0][column][3] - delta.second;
  }
}

} // namespace tilewright

TILEWRIGHT_KERNEL(tilewright::threads, tilewright::config::blocks_per_processor)
attention_backward_key(TILEWRIGHT_ARGUMENT(tilewright::KernelArguments, arguments)) {
  using namespace tilewright;
  const AttentionParameters& p = arguments.call.attention;
  const KeyShared key_shared{shared_memory()}, value_shared{shared_memory() + KeyShared::bytes};
  const int lane = lane_index(), warp_row = warp_index() * 16;

  int blocks_in_flight = 0;
  // The walk over the query blocks is config::stages - 1 blocks ahead of the computation. Between its steps it is
  // parked in shared memory, beside the stage that was loaded last, so that one place may be read while the next is
  // written.
  const auto load_stage = [&](int stage, const KeyBlock& key, const QueryBlocks::State& at) {
    QueryBlocks queries(arguments, key, at);
    if (!queries.done()) {
      load_queries(stage, arguments, key.batch, queries);
      ++blocks_in_flight;
      queries.advance();
    }
    commit_copies();
    if (thread_index() == 0) {
      park(walk_place(stage), queries.state());
    }
    return queries.state();
  };

  Operand<1> keys, values;
  {
    const KeyBlock key = pattern_key_block(arguments, block_index());
    const auto valid = [&](int row) { return key.valid(row); };
    const auto token = [&](int row) { return key.token(row); };
    load_rows(key_shared, head_of(p.key, p.key_strides, key.batch, key.head), p.key_strides.token, valid, token);
    load_rows(value_shared, head_of(p.value, p.value_strides, key.batch, key.head), p.value_strides.token, valid,
              token);
    commit_copies();
    if (thread_index() == 0) {
      park(shared_memory() + key_offset, key);
    }
    wait_for_copies<0>();
    synchronize_block();
    load_operand<1>(keys, key_shared, warp_row, lane);
    load_operand<1>(values, value_shared, warp_row, lane);
    synchronize_block(); // queries take their place
    QueryBlocks::State walk = QueryBlocks(arguments, key).state();
#pragma unroll
    for (int stage = 0; stage < config::stages - 1; ++stage) {
      walk = load_stage(stage, key, walk);
    }
  }

  Gradient<1> key_gradient, value_gradient;
  clear(key_gradient);
  clear(value_gradient);
#pragma unroll 1
  for (int stage = 0; blocks_in_flight > 0; --blocks_in_flight) {
    wait_for_copies<config::stages - 2>(); // this stage
    synchronize_block();                   // everybody's copies; everybody has left the stage that is loaded next
    const int free_stage = stage_before(stage);
    load_stage(free_stage, parked<KeyBlock>(shared_memory() + key_offset),
               parked<QueryBlocks::State>(walk_place(stage_before(free_stage))));
#pragma unroll 1
    for (int first_query = 0; first_query < config::block_q; first_query += narrow_step) {
      Scores<1, narrow_columns> scores, of_probabilities;
      multiply_rows<1>(scores, keys, query_stage(stage), first_query, lane);
      exponentiate(scores, exponents_stage(stage), first_query, p.scale_log2, lane);
      multiply_rows<1>(of_probabilities, values, gradient_stage(stage), first_query, lane);
      add_weighted_rows<1>(value_gradient, scores, gradient_stage(stage), first_query, lane);
      differentiate(scores, of_probabilities, deltas_stage(stage), first_query, lane);
      add_weighted_rows<1>(key_gradient, scores, query_stage(stage), first_query, lane);
    }
    stage = stage_after(stage);
  }
  synchronize_block(); // the results take the stages' place; nothing is on its way there
  const BackwardParameters& backward = arguments.backward;
  const KeyBlock key = pattern_key_block(arguments, opaque(block_index()));
  const auto share = [&](const float* shares) {
    return share_of<PatternParameters>(shares, key, p.heads / p.heads_per_kv_head, p.key_grid);
  };
  stage_gradient<1>(key_gradient, backward.scale, share(backward.shares.key), key_shared, warp_row, lane);
  stage_gradient<1>(value_gradient, 1.f, share(backward.shares.value), value_shared, warp_row, lane);
  store_gradient<1>(key_shared, key,
                    gradient_of(backward.key_gradient, backward.key_gradient_strides, key.batch, key.head),
                    backward.key_gradient_strides.token, warp_row, lane);
  store_gradient<1>(value_shared, key,
                    gradient_of(backward.value_gradient, backward.value_gradient_strides, key.batch, key.head),
                    backward.value_gradient_strides.token, warp_row, lane);
}
