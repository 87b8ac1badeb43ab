// What a kernel that reads and writes boxes of tensors (sm_90) is given besides. Compiled by the host and by the
// device.
#pragma once

#include "kernels/attention_parameters.cuh"
#include "kernels/tensor_map.cuh"

namespace tilewright {

/// The maps of one part of the tokens. A map is "linear" where a tile's rows follow each other in memory (tiled layout,
/// dense, text), else a "canvas":
///     linear   (head_dim, tokens, heads, batch, 1),  box (64, rows, 1, 1, 1)
///     canvas   (columns, w, h, t, outer),            box (64, box_w, box_h, box_t, 1): a part of a tile
/// A canvas's columns are those of all heads where they stand side by side; outer counts what is left of batch and
/// heads.
struct TensorMaps {
  TensorMap query, key, value, output;
};

/// How a canvas map is told a head: columns head * columns_per_head + ..., outer batch * outer_per_batch + head *
/// outer_per_head. A key's and value's heads are those of the keys.
struct HeadPlacement {
  int32_t columns_per_head, outer_per_batch, outer_per_head;
};

/// How the work is dealt out. An item is what a cluster computes at a time: as many query blocks of one head as the
/// cluster has thread blocks; with merged lists, one query block for each consumer.
struct WorkParameters {
  int32_t heads;        // of all batches
  int32_t video_blocks; // query blocks per head that are not text: the first ones
  int32_t video_items;  // per head
  int32_t text_items;   // per head
  int32_t text_rounds;  // as many video items take as long as one text item, which sees all keys
};

/// The one argument of the kernel.
template <class PatternParameters> struct MappedAttentionArguments {
  TensorMaps video, text;
  HeadPlacement query_heads, key_heads, value_heads, output_heads; // of the video's maps
  WorkParameters work;
  AttentionArguments<PatternParameters> call;
};

} // namespace tilewright
