// What the kernels of the backward pass are given at run time. Compiled by the host and by the device: plain values
// only.
//
// Three kernels, one after the other (docs/backward.md):
//     attention_backward_delta   out, dout, lse -> row statistics
//     attention_backward_key     -> dk, dv: a key block meets the query blocks that see it
//     attention_backward_query   -> dq: a query block meets its key blocks
#pragma once

#include "kernels/attention_parameters.cuh"

namespace tilewright {

/// Rows of one head in the row statistics are a multiple of this, the video's and the text's each: a kernel may read
/// whole blocks of as many rows.
constexpr int row_statistics_multiple = 128;

/// What of the forward pass a query row contributes to the gradients, two floats a row. Rows stand in the order of
/// tiles, whatever the layout: row r of video tile n at n * tile tokens + r (dense: at the token's number), row r of
/// the text at text_first + r. So a query block's rows follow each other.
struct RowStatistics {
  float* exponents; // -lse * log2(e): P = exp2(score * scale_log2 + exponent). -inf where the row has no keys, is
                    // padding or does not exist: its P is 0
  float* deltas;    // sum over head_dim of dout * out, less the log-sum-exp's gradient; 0 where the exponent is -inf
  int64_t batch_stride, head_stride; // elements, of both
  int32_t text_first;                // multiple of row_statistics_multiple
  int32_t rows;                      // of one head; a multiple of row_statistics_multiple
};

/// Block lists by key tile: entries offsets[j] .. offsets[j + 1] - 1 of indices are the query tiles whose lists hold
/// key tile j, ascending.
struct TransposedListParameters {
  const int32_t* offsets;                          // [batch, heads, key tiles + 1]
  const int32_t* indices;                          // [batch, heads, entries]
  int64_t offset_batch_stride, offset_head_stride; // elements; 0: shared
  int64_t index_batch_stride, index_head_stride;
};

/// What each row of a tile gets in addition to its own gradient, [batch, heads, tiles, head_dim]: video sparse
/// attention's gradients through the tiles' means. Block lists only; nullptr: nothing.
struct TileShares {
  const float* query;
  const float* key; // heads: of keys and values
  const float* value;
};

struct BackwardParameters {
  const void* output_gradient;
  const float* log_sum_exp_gradient; // [batch, heads, tokens], last stride 1; nullptr: 0
  int64_t log_sum_exp_gradient_batch_stride, log_sum_exp_gradient_head_stride;
  void* query_gradient;
  void* key_gradient;
  void* value_gradient;
  Strides output_gradient_strides, query_gradient_strides, key_gradient_strides, value_gradient_strides;
  RowStatistics statistics;
  TransposedListParameters transposed; // block lists only
  TileShares shares;
  int32_t key_blocks; // per key/value head: video blocks, then text blocks
  float scale;
};

/// The one argument of the backward kernels. call: the forward call's tensors, among them its result and its
/// log-sum-exp; call.attention.query_blocks counts blocks of this kernel's block_q.
template <class PatternParameters> struct AttentionBackwardArguments {
  AttentionArguments<PatternParameters> call;
  BackwardParameters backward;
};

} // namespace tilewright
