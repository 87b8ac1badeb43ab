// Attention forward for every GPU from sm_80 up: mma.sync, ldmatrix, cp.async. One thread block computes
// config::block_q query rows of one head against the key blocks that the pattern names, with an online softmax.
//
// Each warp owns 16 or 32 query rows. Keys and values pass through a ring of config::stages shared-memory stages.
#include "pattern.cuh"

#include "device/copy.cuh"
#include "device/math.cuh"
#include "device/matrix.cuh"
#include "device/parking.cuh"
#include "device/shared_tile.cuh"
#include "kernels/blend.cuh"

namespace tilewright {

using Element = config::Element;
using KernelArguments = AttentionArguments<PatternParameters>;

constexpr int threads = config::warps * warp_size;
constexpr int warp_rows = config::block_q / config::warps;
constexpr int row_groups = warp_rows / 16; // 16 rows: the matrix instruction's m
constexpr int step_keys = 32;              // keys of a stage that are in registers at a time
constexpr int key_groups = step_keys / 16; // 16 keys: its k in P V, and two of its n in Q K^T
constexpr int depth_groups = config::head_dim / 16;
constexpr int score_columns = step_keys / 8; // fragments of 8 columns
constexpr int output_columns = config::head_dim / 8;
static_assert(config::stages >= 2, "one stage is loaded while another is computed on");
static_assert(warp_rows % 16 == 0, "a warp owns a multiple of 16 query rows");
static_assert(KeyTile::tokens % config::block_k == 0, "a key tile must be a whole number of key blocks");

using QueryShared = SharedTile<config::block_q, config::head_dim>;
using KeyShared = SharedTile<config::block_k, config::head_dim>;
constexpr int stage_bytes = 2 * KeyShared::bytes; // keys, then values
/// The walk over the key blocks, as it is parked between two steps.
struct Walk {
  const uint16_t* keys; // of the head
  const uint16_t* values;
  KeyBlocks::State block;
};

constexpr int mask_words = config::block_k / step_keys; // of a stage: which keys are valid, a bit each
static_assert(step_keys == warp_size, "a warp's vote is the mask of one step");
constexpr int masks_offset = QueryShared::bytes + config::stages * stage_bytes;
constexpr int walks_offset =
    masks_offset + (config::stages * mask_words * 4 + copy_bytes - 1) / copy_bytes * copy_bytes;
constexpr int walk_bytes = parked_bytes<Walk>;
static_assert(walks_offset + config::stages * walk_bytes <= config::shared_bytes,
              "the schedule's shared memory must hold all of it");

/// Rows first_row .. of a tile, from global memory into a shared tile; rows that are not contained become zeros.
template <class Shared, class Contains, class Token>
TILEWRIGHT_DEVICE void load_rows(Shared tile, const void* tensor, int64_t token_stride, Contains contains,
                                 Token token) {
  constexpr int rows_per_pass = threads / Shared::chunks_per_row;
  static_assert(Shared::rows % rows_per_pass == 0, "the threads must copy whole rows");
  // Opaque (here and below): the rows' offsets, kept around the main loop, would take up to 64 registers.
  const int chunk = opaque(thread_index()) % Shared::chunks_per_row;
  const int first = opaque(thread_index() / Shared::chunks_per_row);
  const auto* source = static_cast<const uint16_t*>(tensor) + chunk * Shared::chunk_elements;
#pragma unroll 4 // more in flight would hold registers and gain nothing: the copies are asynchronous
  for (int pass = 0; pass < Shared::rows / rows_per_pass; ++pass) {
    const int row = first + pass * rows_per_pass;
    const bool valid = contains(row);
    copy_async(tile.chunk(row, chunk), source + (valid ? token(row) * token_stride : 0), valid);
  }
}

/// A key block's rows. Its passes through the threads are a fixed number of rows apart, so a thread finds its first row
/// and adds what a pass adds: finding each row anew would take a third of the main loop's instructions.
TILEWRIGHT_DEVICE void load_keys(KeyShared tile, const void* tensor, int64_t token_stride, const KeyBlocks& block) {
  using Rows = TileRows<KeyTile>;
  constexpr int rows_per_pass = threads / KeyShared::chunks_per_row;
  constexpr int swizzle_rows = 8; // the swizzle's period; a chunk's place is 16 (chunk ^ row) bytes into its row
  const int first = block.first_row();
  const auto contains = [&](int row) { return block.rows().contains(first + row); };
  if constexpr (Rows::template keeps_digits<config::block_k> && Rows::template keeps_digits<rows_per_pass>) {
    const int chunk = opaque(thread_index()) % KeyShared::chunks_per_row;
    const int thread_row = opaque(thread_index() / KeyShared::chunks_per_row);
    const auto* source = static_cast<const uint16_t*>(tensor) + chunk * KeyShared::chunk_elements +
                         block.rows().token(first + thread_row) * token_stride;
    const SharedAddress destination = tile.chunk(thread_row, chunk);
#pragma unroll
    for (int row = 0; row < KeyShared::rows; row += rows_per_pass) {
      const bool valid = contains(thread_row + row);
      const uint32_t place = destination ^ static_cast<uint32_t>(row % swizzle_rows * copy_bytes);
      copy_async(place + static_cast<uint32_t>(row * KeyShared::row_bytes),
                 source + (valid ? block.rows().token_offset(row) * token_stride : 0), valid);
    }
  } else {
    load_rows(tile, tensor, token_stride, contains, [&](int row) { return block.rows().token(first + row); });
  }
}

/// Leaves beside a stage which of its keys are valid, so that nobody has to walk the key blocks a second time.
TILEWRIGHT_DEVICE void store_key_mask(SharedAddress mask, const KeyBlocks& block) {
  if constexpr (TileRows<KeyTile>::may_be_partial) {
    for (int word = warp_index(); word < mask_words; word += config::warps) {
      const uint32_t bits = vote(block.rows().contains(block.first_row() + word * step_keys + lane_index()));
      store_shared(mask + static_cast<uint32_t>(word) * 4, bits);
    }
  }
}

TILEWRIGHT_DEVICE int stage_before(int stage) { return stage == 0 ? config::stages - 1 : stage - 1; }
TILEWRIGHT_DEVICE int stage_after(int stage) { return stage == config::stages - 1 ? 0 : stage + 1; }

/// What a warp keeps of its rows from one key block to the next. Row r of a group belongs to lane 4 (r % 8) and the
/// next three, half r / 8.
struct RowState {
  float maximum[row_groups][2]; // of the raw scores: the reference of the exponents; -inf before the first valid key
  float sum[row_groups][2];     // of this thread's exponentials
  float output[row_groups][output_columns][4];
};

/// What exponents are taken against. A row that has met no valid key takes 0, so that no NaN arises.
TILEWRIGHT_DEVICE float exponent_reference(float row_maximum, float scale) {
  return row_maximum == negative_infinity() ? 0.f : row_maximum * scale;
}

/// scores = Q K^T for the warp's rows and the step's keys.
TILEWRIGHT_DEVICE void multiply_query_key(float (&scores)[row_groups][score_columns][4], QueryShared query,
                                          KeyShared key, int first_key, int warp_row, int lane) {
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
  lane = opaque(lane);
  const int query_row = warp_row + lane % 16, query_half = lane / 16;
  const int key_row = first_key + lane % 8 + lane / 16 * 8, key_half = lane / 8 % 2;
#pragma unroll
  for (int depth = 0; depth < depth_groups; ++depth) {
    uint32_t a[row_groups][4];
#pragma unroll
    for (int group = 0; group < row_groups; ++group) {
      load_matrices(a[group], query.chunk(query_row + 16 * group, (2 * depth) ^ query_half));
    }
#pragma unroll
    for (int keys = 0; keys < key_groups; ++keys) {
      uint32_t b[4];
      load_matrices(b, key.chunk(key_row + 16 * keys, (2 * depth) ^ key_half));
#pragma unroll
      for (int group = 0; group < row_groups; ++group) {
        multiply_add<Element>(scores[group][2 * keys], a[group], b[0], b[1]);
        multiply_add<Element>(scores[group][2 * keys + 1], a[group], b[2], b[3]);
      }
    }
  }
}

/// Scores of keys that are not valid become -inf. valid: a bit for each of the step's keys.
TILEWRIGHT_DEVICE void mask_scores(float (&scores)[row_groups][score_columns][4], uint32_t valid, int lane) {
  if (valid == all_lanes) {
    return;
  }
  const uint32_t of_lane = valid >> (opaque(lane) % 4 * 2);
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

/// Moves the rows' reference maxima where a score exceeds one by more than the schedule tolerates, and rescales what
/// was accumulated against the old ones.
TILEWRIGHT_DEVICE void raise_maximum(RowState& state, const float (&scores)[row_groups][score_columns][4],
                                     float scale) {
  // Exponentials of up to 2^8 lose nothing in either element type, and most steps then leave the output alone.
  constexpr float tolerated_growth = config::softmax_lazy ? 8.f : 0.f;
  // Each thread looks at its own columns; only where the rows' threads must agree, since one of them moves, do they.
  float row_maximum[row_groups][2];
  bool grows = false;
#pragma unroll
  for (int group = 0; group < row_groups; ++group) {
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      float& largest = row_maximum[group][half];
      largest = maximum(scores[group][0][2 * half], scores[group][0][2 * half + 1]);
#pragma unroll
      for (int column = 1; column < score_columns; ++column) {
        largest = maximum(largest, maximum(scores[group][column][2 * half], scores[group][column][2 * half + 1]));
      }
      grows = grows || (largest - state.maximum[group][half]) * scale > tolerated_growth;
    }
  }
  if (vote(grows) == 0) {
    return;
  }
#pragma unroll
  for (int group = 0; group < row_groups; ++group) {
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      float& largest = row_maximum[group][half];
      largest = maximum(largest, shuffle_xor(largest, 1));
      largest = maximum(largest, shuffle_xor(largest, 2));
      const float raised = maximum(state.maximum[group][half], largest);
      const float rescale = exp2_approximate(state.maximum[group][half] * scale - exponent_reference(raised, scale));
      state.maximum[group][half] = raised;
      state.sum[group][half] *= rescale;
#pragma unroll
      for (int column = 0; column < output_columns; ++column) {
        state.output[group][column][2 * half] *= rescale;
        state.output[group][column][2 * half + 1] *= rescale;
      }
    }
  }
}

/// Turns scores into exp2(scale (score - reference maximum)) and adds them to the row sums.
TILEWRIGHT_DEVICE void exponentiate(RowState& state, float (&scores)[row_groups][score_columns][4], float scale) {
#pragma unroll
  for (int group = 0; group < row_groups; ++group) {
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const float reference = exponent_reference(state.maximum[group][half], scale);
#pragma unroll
      for (int column = 0; column < score_columns; ++column) {
#pragma unroll
        for (int i = 0; i < 2; ++i) {
          float& score = scores[group][column][2 * half + i];
          score = exp2_approximate(fused_multiply_add(score, scale, -reference));
          state.sum[group][half] += score;
        }
      }
    }
  }
}

/// output += P V for the warp's rows and the step's keys.
TILEWRIGHT_DEVICE void multiply_probability_value(RowState& state, const float (&p)[row_groups][score_columns][4],
                                                  KeyShared value, int first_key, int lane) {
  lane = opaque(lane);
  const int value_row = first_key + lane % 16, value_half = lane / 16;
#pragma unroll
  for (int keys = 0; keys < key_groups; ++keys) {
    // The accumulator's layout of two 8-column fragments is the layout of one 16-column operand.
    uint32_t a[row_groups][4];
#pragma unroll
    for (int group = 0; group < row_groups; ++group) {
      a[group][0] = pack<Element>(p[group][2 * keys][0], p[group][2 * keys][1]);
      a[group][1] = pack<Element>(p[group][2 * keys][2], p[group][2 * keys][3]);
      a[group][2] = pack<Element>(p[group][2 * keys + 1][0], p[group][2 * keys + 1][1]);
      a[group][3] = pack<Element>(p[group][2 * keys + 1][2], p[group][2 * keys + 1][3]);
    }
#pragma unroll
    for (int depth = 0; depth < depth_groups; ++depth) {
      uint32_t b[4];
      load_matrices_transposed(b, value.chunk(value_row + 16 * keys, (2 * depth) ^ value_half));
#pragma unroll
      for (int group = 0; group < row_groups; ++group) {
        multiply_add<Element>(state.output[group][2 * depth], a[group], b[0], b[1]);
        multiply_add<Element>(state.output[group][2 * depth + 1], a[group], b[2], b[3]);
      }
    }
  }
}

/// Divides the warp's rows by their sums, which are left in the state.
TILEWRIGHT_DEVICE void normalise(RowState& state) {
#pragma unroll
  for (int group = 0; group < row_groups; ++group) {
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      float& sum = state.sum[group][half];
      sum += shuffle_xor(sum, 1);
      sum += shuffle_xor(sum, 2);
      const bool has_keys = state.maximum[group][half] != negative_infinity();
      const float inverse = has_keys ? reciprocal(sum) : 0.f;
#pragma unroll
      for (int column = 0; column < output_columns; ++column) {
        state.output[group][column][2 * half] *= inverse;
        state.output[group][column][2 * half + 1] *= inverse;
      }
    }
  }
}

/// The warp's rows into its own part of the query's shared memory, which nobody else reads. `blend`: the gate stands
/// there already, and the coarse result is added.
template <bool blend>
TILEWRIGHT_DEVICE void stage_output(const RowState& state, QueryShared staging, const float* coarse, int warp_row,
                                    int lane) {
#pragma unroll
  for (int column = 0; column < output_columns; ++column) {
#pragma unroll
    for (int group = 0; group < row_groups; ++group) {
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        const float* pair = &state.output[group][column][2 * half];
        const SharedAddress place =
            staging.chunk(warp_row + 16 * group + 8 * half + lane / 4, column) + lane % 4 * sizeof(uint32_t);
        if constexpr (blend) {
          const uint32_t gate = config::blend_gated ? load_shared_word(place) : 0u;
          store_shared(place, blended(pair[0], pair[1], gate, coarse + column * 8 + lane % 4 * 2));
        } else {
          store_shared(place, pack<Element>(pair[0], pair[1]));
        }
      }
    }
  }
  synchronize_warp();
}

TILEWRIGHT_DEVICE void store_log_sum_exp(const RowState& state, const QueryBlock& query, const AttentionParameters& p,
                                         int warp_row, int lane) {
  float* rows = p.log_sum_exp + query.batch * p.log_sum_exp_batch_stride + query.head * p.log_sum_exp_head_stride;
#pragma unroll
  for (int group = 0; group < row_groups; ++group) {
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const int row = warp_row + 16 * group + 8 * half + lane / 4;
      const bool has_keys = query.valid(row) && state.maximum[group][half] != negative_infinity();
      const float log2_sum = state.maximum[group][half] * p.scale_log2 + log2_approximate(state.sum[group][half]);
      if (lane % 4 == 0 && query.exists(row)) {
        store_global(rows + query.token(row), has_keys ? log2_sum * natural_log_of_2 : negative_infinity());
      }
    }
  }
}

/// Stages and writes the warp's rows.
TILEWRIGHT_DEVICE void store_output(const RowState& state, QueryShared staging, const QueryBlock& query,
                                    const AttentionParameters& p, int warp_row, int lane) {
  if constexpr (config::blend) {
    if (p.blend.fine != nullptr) {
      stage_output<false>(state, staging, nullptr, warp_row, lane);
      store_staged_rows(p.blend.fine, p.blend.fine_strides, staging, query, warp_row, warp_row, warp_rows);
      synchronize_warp(); // before the gate takes its place
    }
    if constexpr (config::blend_gated) {
      load_gate(staging, p.blend, query, warp_row, warp_row, warp_rows);
    }
    stage_output<true>(state, staging, coarse_row(p.blend, query), warp_row, lane);
  } else {
    stage_output<false>(state, staging, nullptr, warp_row, lane);
  }
  store_staged_rows(p.output, p.output_strides, staging, query, warp_row, warp_row, warp_rows);
}

} // namespace tilewright

TILEWRIGHT_KERNEL(tilewright::threads, tilewright::config::blocks_per_processor)
attention_forward(TILEWRIGHT_ARGUMENT(tilewright::KernelArguments, arguments)) {
  using namespace tilewright;
  const AttentionParameters& p = arguments.attention;
  const QueryBlock query = pattern_query_block(arguments, block_index());
  const auto* query_rows =
      static_cast<const uint16_t*>(p.query) + query.batch * p.query_strides.batch + query.head * p.query_strides.head;
  const QueryShared query_shared{shared_memory()};
  const auto key_shared = [&](int stage) {
    return KeyShared{shared_memory() + QueryShared::bytes + static_cast<uint32_t>(stage) * stage_bytes};
  };
  const auto value_shared = [&](int stage) { return KeyShared{key_shared(stage).base + KeyShared::bytes}; };

  const int warp_row = warp_index() * warp_rows;
  const int lane = lane_index();
  const auto key_mask = [&](int stage) {
    return shared_memory() + masks_offset + static_cast<uint32_t>(stage) * mask_words * 4;
  };
  // The walk over the key blocks is config::stages - 1 blocks ahead of the computation. Between its steps it is parked
  // in shared memory, beside the stage that was loaded last, so that one place may be read while the next is written.
  const auto walk_place = [&](int stage) {
    return shared_memory() + walks_offset + static_cast<uint32_t>(stage) * walk_bytes;
  };
  int blocks_in_flight = 0;
  const auto load_stage = [&](int stage, const Walk& at) {
    KeyBlocks block(arguments, at.block);
    if (!block.done()) {
      load_keys(key_shared(stage), at.keys, p.key_strides.token, block);
      load_keys(value_shared(stage), at.values, p.value_strides.token, block);
      store_key_mask(key_mask(stage), block);
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

  load_rows(
      query_shared, query_rows, p.query_strides.token, [&](int row) { return query.valid(row); },
      [&](int row) { return query.token(row); });
  const int kv_head = query.head / p.heads_per_kv_head;
  Walk first{static_cast<const uint16_t*>(p.key) + query.batch * p.key_strides.batch + kv_head * p.key_strides.head,
             static_cast<const uint16_t*>(p.value) + query.batch * p.value_strides.batch +
                 kv_head * p.value_strides.head,
             KeyBlocks(arguments, query).state()};
#pragma unroll
  for (int stage = 0; stage < config::stages - 1; ++stage) {
    first = load_stage(stage, first);
  }

  RowState state;
#pragma unroll
  for (int group = 0; group < row_groups; ++group) {
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      state.maximum[group][half] = negative_infinity();
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

#pragma unroll 1
  for (int stage = 0; blocks_in_flight > 0; --blocks_in_flight) {
    wait_for_copies<config::stages - 2>(); // this stage
    synchronize_block();                   // everybody's copies; everybody has left the stage that is loaded next
    const int free_stage = stage_before(stage);
    load_stage(free_stage, parked<Walk>(walk_place(stage_before(free_stage))));
#pragma unroll 1
    for (int first_key = 0; first_key < config::block_k; first_key += step_keys) {
      float scores[row_groups][score_columns][4];
      multiply_query_key(scores, query_shared, key_shared(stage), first_key, warp_row, lane);
      if constexpr (TileRows<KeyTile>::may_be_partial) {
        mask_scores(scores, load_shared_word(key_mask(stage) + first_key / step_keys * 4), lane);
      }
      raise_maximum(state, scores, p.scale_log2);
      exponentiate(state, scores, p.scale_log2);
      multiply_probability_value(state, scores, value_shared(stage), first_key, lane);
    }
    stage = stage_after(stage);
  }
  wait_for_copies<0>(); // without a key block nothing waited for the query's rows, which the result's are written over
  synchronize_block();
  normalise(state);
  // Derived anew: kept, it would hold registers around the main loop.
  const QueryBlock result = pattern_query_block(arguments, opaque(block_index()));
  if (p.log_sum_exp != nullptr) {
    store_log_sum_exp(state, result, p, warp_row, lane);
  }
  store_output(state, query_shared, result, p, warp_row, lane);
}
