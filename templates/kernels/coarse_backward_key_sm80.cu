// The coarse attention's gradients with respect to the means of keys and values: a thread block computes
// config::block_k key tiles of one key/value head against all query tiles of the heads that share it.
//     P = exp2(scale_log2 K Q^T + exponents)    dV = P dO    dS = P (V dO^T - deltas)    dK = dS Q
//
// As attention_backward_key, but that a tile takes no part where it holds no token, and that results stay
// float32, divided by the number of the tile's tokens.
#include "kernels/sm80/coarse_backward.cuh"

namespace tilewright {

static_assert(config::block_k == 16 * config::warps, "a warp owns 16 key tiles");

using KeyShared = SharedTile<config::block_k, config::head_dim>;
using QueryShared = SharedTile<config::block_q, config::head_dim>;
constexpr int stages_offset = 2 * KeyShared::bytes; // behind keys and values
constexpr int stage_bytes = 2 * QueryShared::bytes; // queries, then dO
constexpr int statistics_offset = stages_offset + config::stages * stage_bytes;
constexpr int statistics_bytes = config::block_q * static_cast<int>(sizeof(float)); // exponents, then as many deltas
static_assert(coarse_statistics_multiple % config::block_q == 0, "a block's statistics all exist");
static_assert(statistics_offset + config::stages * 2 * statistics_bytes == config::shared_bytes,
              "schedule and kernel must agree on the shared memory");

TILEWRIGHT_DEVICE QueryShared query_stage(int stage) {
  return {shared_memory() + stages_offset + static_cast<uint32_t>(stage) * stage_bytes};
}
TILEWRIGHT_DEVICE QueryShared gradient_stage(int stage) { return {query_stage(stage).base + QueryShared::bytes}; }

TILEWRIGHT_DEVICE SharedAddress exponents_stage(int stage) {
  return shared_memory() + statistics_offset + static_cast<uint32_t>(stage) * 2 * statistics_bytes;
}
TILEWRIGHT_DEVICE SharedAddress deltas_stage(int stage) { return exponents_stage(stage) + statistics_bytes; }

TILEWRIGHT_DEVICE void load_statistics(int stage, const CoarseStatistics& statistics, int64_t first_row) {
  constexpr int copies = statistics_bytes / copy_bytes, floats = copy_bytes / static_cast<int>(sizeof(float));
  static_assert(2 * copies <= threads, "a thread copies 16 bytes of one of the two arrays");
  const int copy = opaque(thread_index());
  if (copy < 2 * copies) {
    const float* rows = (copy < copies ? statistics.exponents : statistics.deltas) + first_row;
    copy_async(exponents_stage(stage) + copy * copy_bytes, rows + copy % copies * floats, true);
  }
}

/// Of the query tiles that the lane holds column `column` and the next of.
TILEWRIGHT_DEVICE FloatPair statistics_of(SharedAddress rows, int first_query, int column, int lane) {
  return load_shared_pair(rows + static_cast<uint32_t>(first_query + column * 8 + lane % 4 * 2) * sizeof(float));
}

/// Scores become probabilities, 0 in the lane's rows (key tiles) that take no part.
TILEWRIGHT_DEVICE void exponentiate(Scores<1>& scores, SharedAddress exponents, int first_query,
                                    const bool (&take_part)[2], float scale_log2, int lane) {
#pragma unroll
  for (int column = 0; column < score_columns; ++column) {
    const FloatPair exponent = statistics_of(exponents, first_query, column, lane);
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      float& score = scores[0][column][i];
      const float power = fused_multiply_add(score, scale_log2, i % 2 == 0 ? exponent.first : exponent.second);
      score = exp2_approximate(take_part[i / 2] ? power : negative_infinity());
    }
  }
}

/// Probabilities become the scores' gradients, given those of the probabilities.
TILEWRIGHT_DEVICE void differentiate(Scores<1>& scores, const Scores<1>& of_probabilities, SharedAddress deltas,
                                     int first_query, int lane) {
#pragma unroll
  for (int column = 0; column < score_columns; ++column) {
    const FloatPair delta = statistics_of(deltas, first_query, column, lane);
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      scores[0][column][i] *= of_probabilities[0][column][i] - (i % 2 == 0 ? delta.first : delta.second);
    }
  }
}

} // namespace tilewright

TILEWRIGHT_KERNEL(tilewright::threads, tilewright::config::blocks_per_processor)
coarse_backward_key(TILEWRIGHT_ARGUMENT(tilewright::KernelArguments, arguments)) {
  using namespace tilewright;
  const CoarseBackwardArguments& p = arguments;
  const int kv_sequence = block_index() / p.blocks_per_head; // batch * key/value heads + head
  const int first_key = block_index() % p.blocks_per_head * config::block_k;
  const int batch = kv_sequence / (p.heads / p.heads_per_kv_head);
  const int lane = lane_index(), warp_row = warp_index() * 16;
  const KeyShared key_shared{shared_memory()}, value_shared{shared_memory() + KeyShared::bytes};
  load_means(key_shared, means_of(p.key_means, kv_sequence, p.key_tiles), first_key, p.key_tiles);
  load_means(value_shared, means_of(p.value_means, kv_sequence, p.key_tiles), first_key, p.key_tiles);

  // The blocks of all query heads that share the key/value head, one head after the other.
  const int blocks_of_head = (p.query_tiles + config::block_q - 1) / config::block_q;
  const int blocks = blocks_of_head * p.heads_per_kv_head;
  const auto sequence_of = [&](int block) { return kv_sequence * p.heads_per_kv_head + block / blocks_of_head; };
  const auto first_query_of = [&](int block) { return block % blocks_of_head * config::block_q; };
  const auto load_stage = [&](int stage, int block) {
    if (block < blocks) {
      load_means(query_stage(stage), means_of(p.query_means, sequence_of(block), p.query_tiles), first_query_of(block),
                 p.query_tiles);
      load_means(gradient_stage(stage), means_of(p.coarse_gradient, sequence_of(block), p.query_tiles),
                 first_query_of(block), p.query_tiles);
      load_statistics(stage, p.statistics,
                      static_cast<int64_t>(sequence_of(block)) * p.statistics.rows + first_query_of(block));
    }
    commit_copies();
  };
#pragma unroll
  for (int stage = 0; stage < config::stages - 1; ++stage) {
    load_stage(stage, stage);
  }
  const int lane_key = first_key + warp_row + lane / 4;
  const bool take_part[2] = {takes_part(p, batch, lane_key), takes_part(p, batch, lane_key + 8)};

  Gradient<1> key_sums, value_sums;
  clear(key_sums);
  clear(value_sums);
  int stage = 0;
#pragma unroll 1
  for (int block = 0; block < blocks; ++block) {
    wait_for_copies<config::stages - 2>(); // this stage
    synchronize_block();                   // everybody's copies; everybody has left the stage that is loaded next
    load_stage(stage_before(stage), block + config::stages - 1);
#pragma unroll 1
    for (int step = 0; step < config::block_q; step += step_rows) {
      Scores<1> scores, of_probabilities;
      multiply_rows<1>(scores, key_shared, warp_row, query_stage(stage), step, lane);
      exponentiate(scores, exponents_stage(stage), step, take_part, p.scale_log2, lane);
      multiply_rows<1>(of_probabilities, value_shared, warp_row, gradient_stage(stage), step, lane);
      add_weighted_rows<1>(value_sums, scores, gradient_stage(stage), step, lane);
      differentiate(scores, of_probabilities, deltas_stage(stage), step, lane);
      add_weighted_rows<1>(key_sums, scores, query_stage(stage), step, lane);
    }
    stage = stage_after(stage);
  }
  const int64_t head = static_cast<int64_t>(kv_sequence) * p.key_tiles * config::head_dim;
  store_shares(key_sums, p.score_factor, p.key_shares + head, p.key_counts, batch, first_key + warp_row, p.key_tiles,
               lane);
  store_shares(value_sums, p.value_factor, p.value_shares + head, p.key_counts, batch, first_key + warp_row,
               p.key_tiles, lane);
}
