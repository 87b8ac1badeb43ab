// What the kernels that work on tiles as a whole are given at run time: pooling, selection, transposed lists. Compiled
// by the host and by the device: plain values only.
#pragma once

#include "kernels/attention_parameters.cuh"

namespace tilewright {

/// One tensor to be pooled.
struct PoolSource {
  const void* tokens;
  void* means;     // [batch, heads, tiles, head_dim], dense
  Strides strides; // of the tokens
  TokenGrid grid;
  const int32_t* sizes; // valid tokens of each tile; nullptr: from the canvas
  int64_t size_batch_stride;
  int32_t heads;
  int32_t end; // one past the number of its last mean; the sources' means are numbered one after the other
};

/// The one argument of pool_tiles.
struct PoolArguments {
  static constexpr int most_sources = 3; // q, k and v
  PoolSource sources[most_sources];
  int32_t means; // of all sources: the last one's end
};

/// The one argument of select_tiles.
struct SelectArguments {
  const void* query_means;  // [batch, heads, query_tiles, head_dim], dense
  const void* key_means;    // [batch, heads / heads_per_kv_head, key_tiles, head_dim], dense
  const void* value_means;  // the same
  const int32_t* key_sizes; // valid tokens of each key tile; nullptr: no tile is empty
  int64_t key_size_batch_stride;
  int32_t* counts;      // [batch, heads, query_tiles]
  int32_t* indices;     // [batch, heads, query_tiles, topk]
  float* coarse_output; // [batch, heads, query_tiles, head_dim]; nullptr: not wanted
  float* log_sum_exp;   // [batch, heads, query_tiles]; nullptr: not wanted
  uint32_t* strips;     // room for a strip of scores for each thread block; nullptr: they are in shared memory
  int32_t heads, heads_per_kv_head;
  int32_t query_tiles, key_tiles, topk;
  int32_t strips_per_head, strips_in_all;
  int32_t strip_stride; // words from one row of a strip to the next
  float scale_log2;     // scale * log2(e)
};

/// The one argument of transpose_lists, which runs twice.
struct TransposeArguments {
  BlockListParameters lists; // sizes are not looked at
  int32_t* counts;           // [batch, heads, key_tiles]: written by the first run, read by the second
  int32_t* offsets;          // [batch, heads, key_tiles + 1]
  int32_t* indices;          // [batch, heads, capacity]
  int64_t capacity;
  int32_t heads, query_tiles, key_tiles;
  int32_t blocks_per_head;
  int32_t fill; // 0: the first run
};

/// Rows of one head in the coarse attention's row statistics are a multiple of this: a kernel reads whole blocks.
constexpr int coarse_statistics_multiple = 64;

/// What a row of the coarse attention, a query tile, contributes to the gradients: [batch, heads, rows] each.
struct CoarseStatistics {
  float* exponents; // -LSE * log2(e); -inf where no key tile holds a token, and in rows that are no query tile
  float* deltas;    // sum over head_dim of the coarse gradient * the coarse output; 0 in rows that are no query tile
  int32_t rows;     // of one head; a multiple of coarse_statistics_multiple
};

/// The one argument of blend_backward.
struct BlendBackwardArguments {
  const void* output_gradient;
  const void* gate;
  void* gate_gradient; // nullptr: not wanted
  Strides output_gradient_strides, gate_strides, gate_gradient_strides;
  const float* coarse_output; // [batch, heads, tiles, head_dim]
  const float* log_sum_exp;   // [batch, heads, tiles], of the coarse attention
  void* coarse_gradient;      // [batch, heads, tiles, head_dim]: factor * the gradient of coarse_output
  CoarseStatistics statistics;
  TokenGrid grid;
  const int32_t* sizes; // valid tokens of each tile; nullptr: from the canvas
  int64_t size_batch_stride;
  float factor; // keeps sums over a tile within the range of fp16
  int32_t heads;
  int32_t rows; // batch * heads * tiles
};

/// How many valid tokens each tile of one side has.
struct TileCounts {
  TokenGrid grid;
  int32_t tile_t, tile_h, tile_w; // tokens
  const int32_t* sizes;           // of each tile; nullptr: from the canvas
  int64_t size_batch_stride;
};

/// The one argument of coarse_backward_query and of coarse_backward_key.
struct CoarseBackwardArguments {
  const void* query_means;     // [batch, heads, query_tiles, head_dim], dense
  const void* key_means;       // [batch, heads / heads_per_kv_head, key_tiles, head_dim], dense
  const void* value_means;     // the same
  const void* coarse_gradient; // as query_means; this and what follows as blend_backward writes it
  CoarseStatistics statistics;
  TileCounts query_counts, key_counts;
  float* query_shares; // as query_means: the means' gradients, divided by the number of the tile's tokens
  float* key_shares;   // as key_means
  float* value_shares;
  int32_t heads, heads_per_kv_head;
  int32_t query_tiles, key_tiles;
  int32_t blocks_per_head; // thread blocks of one head, or of one key/value head
  float scale_log2;        // scale * log2(e)
  float score_factor;      // what the sums for queries and keys are multiplied by: scale / blend_backward's factor
  float value_factor;      // the same for values: 1 / blend_backward's factor
};

/// The one argument of list_mask.
struct MaskArguments {
  const uint8_t* mask;
  int64_t mask_batch_stride, mask_head_stride, mask_tile_stride; // bytes
  int32_t* counts;                                               // [batch, heads, query_tiles]
  int32_t* indices;                                              // [batch, heads, query_tiles, key_tiles]
  int32_t rows;                                                  // batch * heads * query_tiles
  int32_t heads, query_tiles, key_tiles;
};

} // namespace tilewright
