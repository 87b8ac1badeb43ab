// Attention forward for every GPU from sm_80 up: mma.sync, ldmatrix, cp.async. One thread block computes
// config::block_q query rows of one head against the key blocks that the pattern names, with an online softmax.
//
// Each warp owns 16 or 32 query rows. Keys and values pass through a ring of config::stages shared-memory stages. The
// scores of a block are computed one step ahead, so that Q K^T of the next block and P V of this one follow each other
// without anything between them that waits for their results.
#include "pattern.cuh"

#include "kernels/sm80/forward_epilogue.cuh"
#include "kernels/sm80/forward_loaders.cuh"
#include "kernels/sm80/forward_rows.cuh"
#include "kernels/sm80/key_list.cuh"

namespace tilewright {

using KernelArguments = AttentionArguments<PatternParameters>;

static_assert(config::stages >= 2, "one stage is loaded while another is computed on");

constexpr int stage_bytes = 2 * KeyShared::bytes; // keys, then values
constexpr int list_offset = QueryShared::bytes + config::stages * stage_bytes;
constexpr int loader_offset = list_offset + KeyList::bytes;
static_assert(loader_offset + BlockLoader::bytes <= config::shared_bytes,
              "the schedule's shared memory must hold all of it");

TILEWRIGHT_DEVICE int stage_before(int stage) { return stage == 0 ? config::stages - 1 : stage - 1; }
TILEWRIGHT_DEVICE int stage_after(int stage) { return stage == config::stages - 1 ? 0 : stage + 1; }

TILEWRIGHT_DEVICE KeyShared key_stage(int stage) {
  return {shared_memory() + QueryShared::bytes + static_cast<uint32_t>(stage) * stage_bytes};
}
TILEWRIGHT_DEVICE KeyShared value_stage(int stage) { return {key_stage(stage).base + KeyShared::bytes}; }

} // namespace tilewright

TILEWRIGHT_KERNEL(tilewright::threads, tilewright::config::blocks_per_processor)
attention_forward(TILEWRIGHT_ARGUMENT(tilewright::KernelArguments, arguments)) {
  using namespace tilewright;
  const AttentionParameters& p = arguments.attention;
  const int warp = warp_index(), warp_row = warp * warp_rows, lane = lane_index();
  const QueryShared query_shared{shared_memory()};
  const KeyList list{shared_memory() + list_offset};
  const QueryBlock query = pattern_query_block(arguments, block_index());
  const BlockLoader loader(shared_memory() + loader_offset, p);
  // Values follow a step behind their keys, whose scores are computed a step ahead.
  const auto load_step = [&](int block, int stage) {
    loader.load_keys(key_stage(stage), list, block);
    if (block > 0) {
      loader.load_values(value_stage(stage_before(stage)), list, block - 1);
    }
    commit_copies();
  };

  load_query(query_shared, p, query);
  if (warp == 0) {
    list.clear();
    list.extend(arguments, config::stages);
  }
  synchronize_block(); // the list
#pragma unroll
  for (int block = 0; block < config::stages; ++block) {
    load_step(block, block);
  }

  const OperandPlaces places(static_cast<uint32_t>(lane));
  const QueryShared warp_query{query_shared.base + static_cast<uint32_t>(warp_row * QueryShared::row_bytes)};
  RowState state;
  clear(state);
  Scores scores;
  RowValues largest;
  wait_for_copies<config::stages - 1>(); // the queries and the first keys
  synchronize_block();
  const uint32_t valid_first = list.valid(0);
  if (valid_first != 0) {
    multiply_query_key(scores, warp_query, key_stage(0), places);
    if constexpr (TileRows<KeyTile>::may_be_partial) {
      mask_scores(scores, valid_first);
    }
    find_largest(largest, scores);
  }

#pragma unroll 1
  for (int block = 0, stage = 0; list.valid(block) != 0; ++block, stage = stage_after(stage)) {
    follow_maximum(state, largest, p.scale_log2);
    const uint32_t valid_next = list.valid(block + 1);
    Probabilities probabilities;
    exponentiate(probabilities, state, scores, p.scale_log2);

    wait_for_copies<config::stages - 2>(); // this block's values and the next one's keys
    synchronize_block();                   // everybody's copies; everybody has left what is loaded next
    load_step(block + config::stages, stage);
    if (valid_next != 0) {
      multiply_query_key(scores, warp_query, key_stage(stage_after(stage)), places);
      if constexpr (TileRows<KeyTile>::may_be_partial) {
        mask_scores(scores, valid_next);
      }
    }
    multiply_probability_value(state, probabilities, value_stage(stage), places);
    find_largest(largest, scores);
    if (warp == 0) {
      list.extend(arguments, block + config::stages + 1);
    }
  }
  wait_for_copies<0>(); // none outlives the thread block
  normalise(state);
  // Derived anew: kept, it would hold registers around the main loop.
  const QueryBlock result = pattern_query_block(arguments, opaque(block_index()));
  if (p.log_sum_exp != nullptr) {
    store_log_sum_exp(state, result, p, warp_row, lane);
  }
  store_output(state, warp_query, result, p, warp_row, lane);
}
