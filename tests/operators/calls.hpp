// Small sound calls for the operators' tests, one for each pattern. Each test changes what it is about.
#pragma once

#include <vector>

#include "support_tensor.hpp"
#include <tilewright/pattern.hpp>
#include <tilewright/runtime.hpp>

namespace tilewright::testing {

/// 2 batches of 4 query heads over 2 key/value heads, head_dim 64, raster, bf16; a canvas of 4x8x8 tokens in tiles of
/// 4x4x4; sliding tiles have 16 rows of text more. Outputs start as poison.
struct Calls {
  static constexpr std::int64_t batch = 2, heads = 4, kv_heads = 2, head_dim = 64;
  static constexpr std::int64_t video = 256, text_rows = 16, tiles = 4, capacity = 3;
  static constexpr Canvas canvas{4, 8, 8};
  static constexpr Tile tile{4, 4, 4};

  explicit Calls(std::int64_t tokens)
      : q(DataType::bf16, {batch, tokens, heads, head_dim}), k(DataType::bf16, {batch, tokens, kv_heads, head_dim}),
        v(DataType::bf16, {batch, tokens, kv_heads, head_dim}), out(DataType::bf16, {batch, tokens, heads, head_dim}),
        lse(DataType::float32, {batch, heads, tokens}), counts(DataType::int32, {batch, heads, tiles}),
        indices(DataType::int32, {batch, heads, tiles, capacity}), sizes(DataType::int32, {tiles}),
        call{.q = q.view(), .k = k.view(), .v = v.view(), .out = out.view(), .lse = lse.view()},
        sliding{.canvas = canvas, .tile = tile, .windows = {{1, 3, 3}}, .text_length = 9},
        lists{.canvas = canvas, .tile = tile, .counts = counts.view(), .indices = indices.view()} {
    counts.fill([](auto...) { return 2.0; });
    indices.fill([](auto, auto, auto, auto entry) { return static_cast<double>(entry + 1); });
    sizes.fill([](auto...) { return 64.0; });
  }

  HostTensor q, k, v, out, lse, counts, indices, sizes;
  AttentionForward call;
  SlidingTile sliding;
  BlockList lists;
};

struct SlidingCalls : Calls {
  SlidingCalls() : Calls(video + text_rows) {}
};

struct ListCalls : Calls {
  ListCalls() : Calls(video) {}

  /// The same memory as [batch, heads, tokens, head_dim].
  void make_tiled() {
    call.layout = Layout::tiled;
    for (TensorView* view : {&call.q, &call.k, &call.v, &call.out})
      *view = TensorView::contiguous(view->data, view->dtype, {batch, view->extents[2], view->extents[1], head_dim});
  }
};

} // namespace tilewright::testing
