// Video sparse attention (VSA; docs/semantics.md, docs/video_sparse.md): the whole operator, and its parts for those
// who bring their own selection. The functions that take these calls are Runtime's.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>

#include <tilewright/pattern.hpp>
#include <tilewright/types.hpp>

namespace tilewright {

/// From a sparsity (the share of tiles that is left out, 0 to 1) to topk, in the two conventions that are in use:
/// max(1, min(ceil((1 - sparsity) * tiles), tiles)), and ceil((1 - sparsity) * tokens / 64). Throw invalid_argument for
/// a sparsity outside 0 .. 1 or a number below 1.
std::int64_t topk_of_tiles(double sparsity, std::int64_t key_tiles);
std::int64_t topk_of_tokens(double sparsity, std::int64_t key_tokens);

/// The whole operator: every query tile attends to its topk key tiles and, coarsely, to the means of all:
///     out = softmax(scale q k^T over the chosen tiles) v + gate * coarse
///
/// q, k, v, out  as AttentionForward's; the canvases have no text
/// gate          elementwise, type and extents of out; 1 where none is given
/// lse           of the fine branch, as AttentionForward's; optional
/// fine          the fine branch's result before blending, type and extents of out; optional, for training
/// query_sizes, key_sizes  int32 [tiles] or [batch, tiles]: valid tokens of each tile, tiled layout only. An empty key
///               tile takes no part in the coarse attention and is chosen last
/// topk          1 to the number of key tiles
/// workspace     device memory, aligned to 256 bytes, of Runtime::workspace_of's size, for this call alone until it has
///               finished; what is kept in it for the backward pass is listed there
struct VideoSparseAttention {
  TensorView q, k, v, out;
  std::optional<TensorView> gate{}, lse{}, fine{};
  Layout layout = Layout::raster;
  std::optional<float> scale{};
  Canvas canvas{};
  Tile tile{4, 4, 4};
  std::optional<Canvas> key_canvas{}; // none: the same as the queries'
  std::optional<TensorView> query_sizes{}, key_sizes{};
  std::int64_t topk = 0;
  bool neighbours_share = false; // as BlockList's: the choice of the fine kernel
  void* workspace = nullptr;
  std::size_t workspace_bytes = 0;
};

/// How a call's workspace is laid out: views that point into it, each aligned to 256 bytes, in this order; then the
/// strips, which hold nothing of use after the call.
struct VideoSparseWorkspace {
  TensorView pooled_query;             // [batch, heads, query tiles, head_dim] in the input's type
  TensorView pooled_key, pooled_value; // [batch, kv heads, key tiles, head_dim]
  TensorView coarse_output;            // float32 [batch, heads, query tiles, head_dim]
  TensorView coarse_lse;               // float32 [batch, heads, query tiles], natural logarithm
  TensorView counts, indices;          // int32 [batch, heads, query tiles], [..., topk]: as BlockList takes them
  void* strips = nullptr;
  std::size_t strip_bytes = 0; // 0 where a strip of scores fits the shared memory
  std::size_t bytes = 0;       // of all
};

/// The gradients of a loss with respect to q, k, v and gate, from its gradient with respect to out, through both
/// branches and the means. The selection has no gradient.
///
/// forward    the call that it is the gradient of, with its results: fine and lse are not optional here, and the
///            workspace holds what the call left there (but for the strips). out is not looked at
/// dout       type and extents of out
/// dq, dk, dv type and extents of q, k and v: all of their rows are written, padding with 0
/// dgate      type and extents of gate, as the above; optional, and only with a gate
/// workspace  device memory, aligned to 256 bytes, of Runtime::workspace_bytes, for this call alone until it has
///            finished
///
/// Gradients are the same bits in every run.
struct VideoSparseAttentionBackward {
  VideoSparseAttention forward;
  TensorView dout, dq, dk, dv;
  std::optional<TensorView> dgate{};
  void* workspace = nullptr;
  std::size_t workspace_bytes = 0;
};

/// means = the mean of each tile's valid tokens: a float32 sum over the valid count, in the tokens' type; 0 where a
/// tile is empty. tokens as q of AttentionForward, without text; means [batch, heads, tiles, head_dim], contiguous.
struct PoolTiles {
  TensorView tokens, means;
  Layout layout = Layout::raster;
  Canvas canvas{};
  Tile tile{4, 4, 4};
  std::optional<TensorView> sizes{}; // int32 [tiles] or [batch, tiles], tiled layout only
};

/// For each query tile the topk key tiles with the largest score (query mean times key mean), exactly topk, ascending;
/// equal scores go to the lower tile. With value_means also the coarse attention over the means. All contiguous.
///
/// query_means   bf16 or fp16 [batch, heads, query tiles, head_dim]
/// key_means, value_means  the same type, [batch, kv heads, key tiles, head_dim]
/// counts        int32 [batch, heads, query tiles]: topk in every place
/// indices       int32 [batch, heads, query tiles, topk]
/// coarse_output float32 as query_means; needs value_means
/// coarse_lse    float32 [batch, heads, query tiles]
/// key_sizes     int32 [key tiles] or [batch, key tiles]: where one is 0 the tile is empty
/// workspace     of Runtime::workspace_bytes, aligned to 256 bytes; may be null where that is 0
struct SelectTiles {
  TensorView query_means, key_means;
  std::optional<TensorView> value_means{};
  TensorView counts, indices;
  std::optional<TensorView> coarse_output{}, coarse_lse{};
  std::optional<TensorView> key_sizes{};
  std::optional<float> scale{};
  void* workspace = nullptr;
  std::size_t workspace_bytes = 0;
};

/// The inverse of block lists: the query tiles that list each key tile, ascending, the same bits in every run.
///
/// counts, indices  as BlockList's
/// key_counts       int32 [batch, heads, key tiles]: query tiles that list the key tile
/// offsets          int32 [batch, heads, key tiles + 1]: where a key tile's query tiles begin, and the end of the last
/// query_indices    int32 [batch, heads, capacity], capacity at least the sum of the counts of a head, such as query
///                  tiles * the capacity of indices
/// The last three are contiguous; batch and heads are theirs, and shared lists are transposed for each of them.
struct TransposeLists {
  TensorView counts, indices;
  TensorView key_counts, offsets, query_indices;
};

/// Block lists out of a mask: what block sparse attention takes (attention_forward with a BlockList).
///
/// mask     boolean (one byte) [batch | 1, heads | 1, query tiles, key tiles], contiguous in its last dimension
/// counts   int32 [batch | 1, heads | 1, query tiles], contiguous
/// indices  int32 [batch | 1, heads | 1, query tiles, key tiles], contiguous
struct ListMask {
  TensorView mask, counts, indices;
};

} // namespace tilewright
