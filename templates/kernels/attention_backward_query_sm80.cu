// dQ for every GPU from sm_80 up: mma.sync, ldmatrix, cp.async. One thread block computes config::block_q query rows of
// one head against the key blocks that the pattern names:
//     P = exp2(scale_log2 Q K^T + exponents)    dS = P (dO V^T - deltas)    dQ += dS K, times scale in the end
//
// Each warp owns 16 or 32 query rows: their queries and dO stay in registers. Keys and values pass through a ring of
// config::stages shared-memory stages, whose place the thread block's own rows take at the beginning and their gradient
// in the end.
#include "pattern.cuh"

#include "kernels/sm80/backward.cuh"
#include "patterns/statistics_rows.cuh"

namespace tilewright {

using KernelArguments = AttentionBackwardArguments<PatternParameters>;

constexpr int warp_rows = config::block_q / config::warps;
constexpr int row_groups = warp_rows / 16;
static_assert(warp_rows % 16 == 0, "a warp owns a multiple of 16 query rows");
static_assert(config::block_k % step_rows == 0, "a stage is a whole number of steps");

using QueryShared = SharedTile<config::block_q, config::head_dim>;
using KeyShared = SharedTile<config::block_k, config::head_dim>;
constexpr int stage_bytes = 2 * KeyShared::bytes; // keys, then values

/// The walk over the key blocks, as it is parked between two steps.
struct Walk {
  const uint16_t* keys; // of the head
  const uint16_t* values;
  KeyBlocks::State block;
};

constexpr int mask_words = config::block_k / step_rows; // of a stage: which keys are valid, a bit each
static_assert(step_rows == warp_size, "a warp's vote is the mask of one step");
constexpr int own_bytes = 2 * QueryShared::bytes;
constexpr int masks_offset = own_bytes > config::stages* stage_bytes ? own_bytes : config::stages* stage_bytes;
constexpr int walks_offset =
    masks_offset + (config::stages * mask_words * 4 + copy_bytes - 1) / copy_bytes * copy_bytes;
constexpr int walk_bytes = parked_bytes<Walk>;
static_assert(walks_offset + config::stages * walk_bytes <= config::shared_bytes,
              "the schedule's shared memory must hold all of it");

TILEWRIGHT_DEVICE KeyShared key_stage(int stage) {
  return {shared_memory() + static_cast<uint32_t>(stage) * stage_bytes};
}
TILEWRIGHT_DEVICE KeyShared value_stage(int stage) { return {key_stage(stage).base + KeyShared::bytes}; }
TILEWRIGHT_DEVICE SharedAddress mask_place(int stage) {
  return shared_memory() + masks_offset + static_cast<uint32_t>(stage) * mask_words * 4;
}
TILEWRIGHT_DEVICE SharedAddress walk_place(int stage) {
  return shared_memory() + walks_offset + static_cast<uint32_t>(stage) * walk_bytes;
}

/// Leaves beside a stage which of its keys are valid.
TILEWRIGHT_DEVICE void store_key_mask(SharedAddress mask, const KeyBlocks& block) {
  if constexpr (TileRows<KeyTile>::may_be_partial) {
    for (int word = warp_index(); word < mask_words; word += config::warps) {
      const uint32_t bits = vote(block.rows().contains(block.first_row() + word * step_rows + lane_index()));
      store_shared(mask + static_cast<uint32_t>(word) * 4, bits);
    }
  }
}

/// Of the lane's rows.
struct LaneStatistics {
  float exponents[row_groups][2], deltas[row_groups][2];
};

TILEWRIGHT_DEVICE LaneStatistics load_statistics(const RowStatistics& statistics, const QueryBlock& query, int warp_row,
                                                 int lane) {
  const int64_t first = query.batch * statistics.batch_stride + query.head * statistics.head_stride +
                        statistics_row(query, statistics) + warp_row + lane / 4;
  LaneStatistics of_lane;
#pragma unroll
  for (int group = 0; group < row_groups; ++group) {
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      of_lane.exponents[group][half] = load_constant(statistics.exponents + first + 16 * group + 8 * half);
      of_lane.deltas[group][half] = load_constant(statistics.deltas + first + 16 * group + 8 * half);
    }
  }
  return of_lane;
}

/// Scores become probabilities, 0 for keys that are not valid (a bit for each of the step's keys). Not so by a zero key
/// alone: a probability that overflows times zero is no number.
TILEWRIGHT_DEVICE void exponentiate(Scores<row_groups>& scores, const LaneStatistics& statistics, uint32_t valid,
                                    float scale_log2, int lane) {
  const uint32_t of_lane = valid >> (lane % 4 * 2);
#pragma unroll
  for (int column = 0; column < score_columns; ++column) {
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const bool masked = (of_lane >> (column * 8 + i % 2) & 1) == 0;
#pragma unroll
      for (int group = 0; group < row_groups; ++group) {
        float& score = scores[group][column][i];
        const float exponent = fused_multiply_add(score, scale_log2, statistics.exponents[group][i / 2]);
        score = exp2_approximate(TileRows<KeyTile>::may_be_partial && masked ? negative_infinity() : exponent);
      }
    }
  }
}

/// Probabilities become the scores' gradients, given those of the probabilities.
TILEWRIGHT_DEVICE void differentiate(Scores<row_groups>& scores, const Scores<row_groups>& of_probabilities,
                                     const LaneStatistics& statistics) {
#pragma unroll
  for (int group = 0; group < row_groups; ++group) {
#pragma unroll
    for (int column = 0; column < score_columns; ++column) {
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        scores[group][column][i] *= of_probabilities[group][column][i] - statistics.deltas[group][i / 2];
      }
    }
  }
}

} // namespace tilewright

TILEWRIGHT_KERNEL(tilewright::threads, tilewright::config::blocks_per_processor)
attention_backward_query(TILEWRIGHT_ARGUMENT(tilewright::KernelArguments, arguments)) {
  using namespace tilewright;
  const AttentionParameters& p = arguments.call.attention;
  const BackwardParameters& backward = arguments.backward;
  const QueryShared query_shared{shared_memory()}, gradient_shared{shared_memory() + QueryShared::bytes};
  const int lane = lane_index(), warp_row = warp_index() * warp_rows;

  int blocks_in_flight = 0;
  // As in attention_forward_sm80.cu: the walk is config::stages - 1 blocks ahead, parked between its steps.
  const auto load_stage = [&](int stage, const Walk& at) {
    KeyBlocks block(arguments.call, at.block);
    if (!block.done()) {
      const int first = block.first_row();
      load_step(key_stage(stage), at.keys, p.key_strides.token, at.values, p.value_strides.token, block.rows(), first,
                [&](int row) { return block.rows().contains(first + row); });
      store_key_mask(mask_place(stage), block);
      ++blocks_in_flight;
      block.advance();
    }
    commit_copies();
    const Walk next{at.keys, at.values, block.state()};
    if (thread_index() == 0) {
      park(walk_place(stage), next);
    }
    return next;
  };

  const QueryBlock query = pattern_query_block(arguments.call, block_index());
  const auto valid = [&](int row) { return query.valid(row); };
  const auto token = [&](int row) { return query.token(row); };
  load_rows(query_shared, head_of(p.query, p.query_strides, query.batch, query.head), p.query_strides.token, valid,
            token);
  load_rows(gradient_shared,
            head_of(backward.output_gradient, backward.output_gradient_strides, query.batch, query.head),
            backward.output_gradient_strides.token, valid, token);
  commit_copies();
  const LaneStatistics statistics = load_statistics(backward.statistics, query, warp_row, lane);
  const int kv_head = query.head / p.heads_per_kv_head;
  Walk walk{head_of(p.key, p.key_strides, query.batch, kv_head),
            head_of(p.value, p.value_strides, query.batch, kv_head), KeyBlocks(arguments.call, query).state()};
  wait_for_copies<0>();
  synchronize_block();
  Operand<row_groups> queries, output_gradients;
  load_operand<row_groups>(queries, query_shared, warp_row, lane);
  load_operand<row_groups>(output_gradients, gradient_shared, warp_row, lane);
  synchronize_block(); // keys take their place
#pragma unroll
  for (int stage = 0; stage < config::stages - 1; ++stage) {
    walk = load_stage(stage, walk);
  }

  Gradient<row_groups> gradient;
  clear(gradient);
#pragma unroll 1
  for (int stage = 0; blocks_in_flight > 0; --blocks_in_flight) {
    wait_for_copies<config::stages - 2>(); // this stage
    synchronize_block();                   // everybody's copies; everybody has left the stage that is loaded next
    const int free_stage = stage_before(stage);
    load_stage(free_stage, parked<Walk>(walk_place(stage_before(free_stage))));
#pragma unroll 1
    for (int first_key = 0; first_key < config::block_k; first_key += step_rows) {
      Scores<row_groups> scores, of_probabilities;
      multiply_rows<row_groups>(scores, queries, key_stage(stage), first_key, lane);
      uint32_t valid_keys = all_lanes;
      if constexpr (TileRows<KeyTile>::may_be_partial) {
        valid_keys = load_shared_word(mask_place(stage) + first_key / step_rows * 4);
      }
      exponentiate(scores, statistics, valid_keys, p.scale_log2, lane);
      multiply_rows<row_groups>(of_probabilities, output_gradients, value_stage(stage), first_key, lane);
      differentiate(scores, of_probabilities, statistics);
      add_weighted_rows<row_groups>(gradient, scores, key_stage(stage), first_key, lane);
    }
    stage = stage_after(stage);
  }
  synchronize_block(); // the results take the stages' place; nothing is on its way there
  // Derived anew: kept, it would hold registers around the main loop.
  const QueryBlock result = pattern_query_block(arguments.call, opaque(block_index()));
  stage_gradient<row_groups>(gradient, backward.scale,
                             share_of<PatternParameters>(backward.shares.query, result, p.heads, p.query_grid),
                             query_shared, warp_row, lane);
  store_gradient<row_groups>(
      query_shared, result,
      gradient_of(backward.query_gradient, backward.query_gradient_strides, result.batch, result.head),
      backward.query_gradient_strides.token, warp_row, lane);
}
