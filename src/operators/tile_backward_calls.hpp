// The launches of the kernels that differentiate blending, coarse attention and pooling. Everything is checked before.
#pragma once

#include "driver/executor.hpp"
#include "operators/runtime_state.hpp"
#include <tilewright/video_sparse.hpp>

namespace tilewright::operators {

/// Parts of the workspace of a backward call, each aligned to 256 bytes, in this order.
struct VideoSparseBackwardWorkspace {
  void* fine = nullptr; // of attention_backward
  std::size_t fine_bytes = 0;
  TensorView coarse_gradient;   // [batch, heads, query tiles, head_dim] in the input's type, times blend_factor
  TensorView exponents, deltas; // float32 [batch, heads, statistics_rows(query tiles)]: of the coarse attention
  TensorView query_shares;      // float32 [batch, heads, query tiles, head_dim]: what each of a tile's tokens gets
  TensorView key_shares, value_shares; // float32 [batch, kv heads, key tiles, head_dim]
  std::size_t bytes = 0;
};

/// Query tiles rounded up to what the kernels read at a time.
std::int64_t statistics_rows(std::int64_t query_tiles);

/// What the gradients of the coarse output are multiplied by while they are in 16 bits: about 1 / sqrt(tile), so that
/// sums over a tile's tokens stay as large as their terms where these are random. A power of 2: exact.
float blend_factor(const Tile& tile);

void launch_blend_backward(Executor& executor, const Prepared& prepared, const VideoSparseAttentionBackward& call,
                           const VideoSparseWorkspace& forward, const VideoSparseBackwardWorkspace& workspace,
                           Stream stream);

/// of: coarse_backward_query or coarse_backward_key, as prepared.
void launch_coarse_backward(Executor& executor, const Prepared& prepared, const VideoSparseAttentionBackward& call,
                            const VideoSparseWorkspace& forward, const VideoSparseBackwardWorkspace& workspace,
                            Stream stream);

} // namespace tilewright::operators
