// From a call to the tensor maps and the division of work that the sm90 kernel takes
// (templates/kernels/mapped_attention_parameters.cuh).
#pragma once

#include <cstdint>
#include <optional>

#include "driver/executor.hpp"
#include "kernels/mapped_attention_parameters.cuh"
#include "kernels/mapped_backward_parameters.cuh"
#include <tilewright/schedule.hpp>

namespace tilewright::operators {

struct MapRequests {
  TensorMapRequest query, key, value, output;
};

/// All that describes a call's tensors to the copy engine.
struct MappedTensors {
  MapRequests video;
  std::optional<MapRequests> text; // where the problem has text
  HeadPlacement query_heads, key_heads, value_heads, output_heads;
};

/// The maps of a call whose parameters are complete (p.heads / p.heads_per_kv_head key/value heads). Elements outside a
/// map arrive as zeros and are not stored: a canvas map ends at the canvas's edges, the text's maps of q, k and v at
/// text_length, that of out at text_rows. Throws unsupported, naming the tensor, where its strides fit no map of five
/// dimensions.
MappedTensors map_tensors(const Spec& spec, const AttentionParameters& p, std::int32_t batch);

/// As BackwardTensorMaps orders them.
struct BackwardMapRequests {
  TensorMapRequest own[2], walked[2], gradient[2];
  std::int32_t gradients; // of gradient; the key kernel has two, the query kernel one
};

struct MappedBackwardTensors {
  BackwardMapRequests video;
  std::optional<BackwardMapRequests> text;
  HeadPlacement own_heads[2], walked_heads[2], gradient_heads[2];
};

/// The same for a backward kernel. What is read ends at text_length, gradients at text_rows.
MappedBackwardTensors map_backward_tensors(const Spec& spec, const AttentionParameters& p, const BackwardParameters& b,
                                           std::int32_t batch);

/// How the query blocks of a call are dealt out. video_blocks is what p.query_blocks counts before the text; both are
/// per head, and p.query_blocks is rounded up to whole items. mean_window: key tiles that a video query tile sees, on
/// average.
struct DealtWork {
  WorkParameters work;
  std::int32_t query_blocks; // what p.query_blocks has to be
  std::int64_t items;        // of all heads: no more clusters than these have anything to do
};
DealtWork deal_work(const Spec& spec, const AttentionParameters& p, std::int32_t batch, double mean_window);

/// A persistent grid: as many thread blocks as the device's multiprocessors hold at a time, in whole clusters, and no
/// more than there are items.
LaunchShape hopper_launch_shape(const Spec& spec, const DealtWork& work, std::int32_t multiprocessors);

} // namespace tilewright::operators
