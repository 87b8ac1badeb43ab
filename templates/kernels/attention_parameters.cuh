// What an attention kernel is given at run time. Compiled by the host and by the device: plain values only.
#pragma once

#include "device/integers.cuh"

namespace tilewright {

/// Elements between neighbours. head_dim has stride 1.
struct Strides {
  int64_t batch, head, token;
};

/// One side (queries or keys) of the attention: a canvas of tokens cut into tiles. A plain sequence is 1 x 1 x length.
struct TokenGrid {
  int32_t t, h, w;                   // tokens
  int32_t tiles_t, tiles_h, tiles_w; // tiles, the clipped ones included
};

/// What the attention's result is blended with: out = fine + gate * coarse.
struct BlendParameters {
  const float* coarse;                             // [batch, heads, query tiles, head_dim]; nullptr: nothing is blended
  const void* gate;                                // of the output's type and extents
  void* fine;                                      // the result before blending goes here; nullptr: not wanted
  int64_t coarse_batch_stride, coarse_head_stride; // elements; tiles have stride head_dim
  Strides gate_strides, fine_strides;
};

struct AttentionParameters {
  const void* query;
  const void* key;
  const void* value;
  void* output;
  float* log_sum_exp; // nullptr: not wanted
  Strides query_strides, key_strides, value_strides, output_strides;
  int64_t log_sum_exp_batch_stride, log_sum_exp_head_stride; // elements; tokens have stride 1
  TokenGrid query_grid, key_grid;
  int32_t heads;             // of the queries
  int32_t heads_per_kv_head; // grouped heads: this many query heads share one key/value head
  int32_t query_blocks;      // per head: video blocks, then text blocks
  int32_t text_rows;         // text rows of the query tensor, padding included
  int32_t text_length;       // valid text tokens, the first of the text rows
  float scale_log2;          // scale * log2(e): scores are exponents of 2
  BlendParameters blend;
};

struct DenseParameters {};

struct SlidingTileParameters {
  static constexpr int max_heads = 128;
  uint16_t windows[max_heads][3]; // tiles along t, h, w for each head; unused where the problem names one window
};

struct BlockListParameters {
  const int32_t* counts;
  const int32_t* indices;
  const int32_t* query_sizes; // valid tokens of each query tile; nullptr: from the canvas
  const int32_t* key_sizes;
  int64_t count_batch_stride, count_head_stride; // elements; 0: shared
  int64_t index_batch_stride, index_head_stride, index_tile_stride;
  int64_t query_size_batch_stride, key_size_batch_stride;
};

/// The one argument of an attention kernel.
template <class PatternParameters> struct AttentionArguments {
  AttentionParameters attention;
  PatternParameters pattern;
};

} // namespace tilewright
