// The coarse attention's gradient with respect to the queries' means: a thread block computes config::block_q query
// tiles of one head against all key tiles.
//     P = exp2(scale_log2 Q K^T + exponents)    dS = P (dO V^T - deltas)    dQ = dS K
//
// As attention_backward_query, but that a tile takes no part where it holds no token, and that results stay
// float32, divided by the number of the tile's tokens.
#include "kernels/sm80/coarse_backward.cuh"

namespace tilewright {

static_assert(config::block_q == 16 * config::warps, "a warp owns 16 query tiles");
static_assert(coarse_statistics_multiple % config::block_q == 0, "a block's statistics all exist");

using QueryShared = SharedTile<config::block_q, config::head_dim>;
using KeyShared = SharedTile<config::block_k, config::head_dim>;
constexpr int stages_offset = 2 * QueryShared::bytes; // behind queries and dO
constexpr int stage_bytes = 2 * KeyShared::bytes;     // keys, then values
static_assert(stages_offset + config::stages * stage_bytes == config::shared_bytes,
              "schedule and kernel must agree on the shared memory");

TILEWRIGHT_DEVICE KeyShared key_stage(int stage) {
  return {shared_memory() + stages_offset + static_cast<uint32_t>(stage) * stage_bytes};
}
TILEWRIGHT_DEVICE KeyShared value_stage(int stage) { return {key_stage(stage).base + KeyShared::bytes}; }

/// Scores become their gradients, 0 for key tiles that take no part (a bit for each of the step's). exponents and
/// deltas: of the lane's two rows.
TILEWRIGHT_DEVICE void differentiate(Scores<1>& scores, const Scores<1>& of_probabilities, const float (&exponents)[2],
                                     const float (&deltas)[2], uint32_t part, float scale_log2, int lane) {
  const uint32_t of_lane = part >> (lane % 4 * 2);
#pragma unroll
  for (int column = 0; column < score_columns; ++column) {
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const bool takes_part = (of_lane >> (column * 8 + i % 2) & 1) != 0;
      const float exponent = fused_multiply_add(scores[0][column][i], scale_log2, exponents[i / 2]);
      const float probability = exp2_approximate(takes_part ? exponent : negative_infinity());
      scores[0][column][i] = probability * (of_probabilities[0][column][i] - deltas[i / 2]);
    }
  }
}

} // namespace tilewright

TILEWRIGHT_KERNEL(tilewright::threads, tilewright::config::blocks_per_processor)
coarse_backward_query(TILEWRIGHT_ARGUMENT(tilewright::KernelArguments, arguments)) {
  using namespace tilewright;
  const CoarseBackwardArguments& p = arguments;
  const int sequence = block_index() / p.blocks_per_head; // batch * heads + head
  const int first_query = block_index() % p.blocks_per_head * config::block_q;
  const int kv_sequence = sequence / p.heads_per_kv_head, batch = sequence / p.heads;
  const int lane = lane_index(), warp_row = warp_index() * 16;
  const QueryShared query_shared{shared_memory()}, gradient_shared{shared_memory() + QueryShared::bytes};
  load_means(query_shared, means_of(p.query_means, sequence, p.query_tiles), first_query, p.query_tiles);
  load_means(gradient_shared, means_of(p.coarse_gradient, sequence, p.query_tiles), first_query, p.query_tiles);
  const auto load_stage = [&](int stage, int first_key) {
    if (first_key < p.key_tiles) {
      load_means(key_stage(stage), means_of(p.key_means, kv_sequence, p.key_tiles), first_key, p.key_tiles);
      load_means(value_stage(stage), means_of(p.value_means, kv_sequence, p.key_tiles), first_key, p.key_tiles);
    }
    commit_copies();
  };
#pragma unroll
  for (int stage = 0; stage < config::stages - 1; ++stage) {
    load_stage(stage, stage * config::block_k);
  }
  const int64_t lane_row = static_cast<int64_t>(sequence) * p.statistics.rows + first_query + warp_row + lane / 4;
  const float exponents[2] = {load_constant(p.statistics.exponents + lane_row),
                              load_constant(p.statistics.exponents + lane_row + 8)};
  const float deltas[2] = {load_constant(p.statistics.deltas + lane_row),
                           load_constant(p.statistics.deltas + lane_row + 8)};

  Gradient<1> sums;
  clear(sums);
  int stage = 0;
#pragma unroll 1
  for (int first_key = 0; first_key < p.key_tiles; first_key += config::block_k) {
    wait_for_copies<config::stages - 2>(); // this stage
    synchronize_block();                   // everybody's copies; everybody has left the stage that is loaded next
    load_stage(stage_before(stage), first_key + (config::stages - 1) * config::block_k);
#pragma unroll 1
    for (int step = 0; step < config::block_k; step += step_rows) {
      Scores<1> scores, of_probabilities;
      multiply_rows<1>(scores, query_shared, warp_row, key_stage(stage), step, lane);
      multiply_rows<1>(of_probabilities, gradient_shared, warp_row, value_stage(stage), step, lane);
      const uint32_t part = vote(takes_part(p, batch, first_key + step + lane));
      differentiate(scores, of_probabilities, exponents, deltas, part, p.scale_log2, lane);
      add_weighted_rows<1>(sums, scores, key_stage(stage), step, lane);
    }
    stage = stage_after(stage);
  }
  store_shares(sums, p.score_factor, p.query_shares + static_cast<int64_t>(sequence) * p.query_tiles * config::head_dim,
               p.query_counts, batch, first_query + warp_row, p.query_tiles, lane);
}
