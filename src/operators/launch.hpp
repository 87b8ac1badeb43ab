// One launch of a forward kernel: a checked call and a spec, turned into the kernel's arguments.
#pragma once

#include <type_traits>

#include "driver/executor.hpp"
#include "kernels/attention_parameters.cuh"
#include "operators/call_shape.hpp"

namespace tilewright::operators {

constexpr std::uint32_t warp_size = 32, warpgroup_size = 128; // threads

/// Of what is 0 and more.
template <class Integer> constexpr Integer ceiling_divide(Integer number, std::type_identity_t<Integer> by) {
  return number / by + (number % by == 0 ? 0 : 1);
}

/// Kernels count in 32 bits: throws unsupported where there are more of what is named.
std::int32_t counted(std::int64_t number, const char* what);

struct LaunchRequest {
  const AttentionForward& call;
  const Pattern& pattern;
  const CallShape& shape;
  const Spec& spec;
};

/// What all families' kernels are given. block_q and block_k: the tiles of a dense problem.
AttentionParameters attention_parameters(const LaunchRequest& request, std::int32_t block_q, std::int32_t block_k);
SlidingTileParameters pattern_parameters(const LaunchRequest& request, const SlidingTile& pattern);
BlockListParameters pattern_parameters(const LaunchRequest& request, const BlockList& pattern);
DenseParameters pattern_parameters(const LaunchRequest& request, const Dense& pattern);

/// Parts of the above that other operators' arguments share. Views with extent 1 are shared: their stride is 0.
TokenGrid grid_of(const Extent3& canvas, const Extent3& tile);
BlockListParameters list_parameters(const TensorView& counts, const TensorView& indices);
std::int64_t shared_stride(const TensorView& view, std::size_t dimension);
std::int64_t size_stride(const std::optional<TensorView>& sizes);
const std::int32_t* size_data(const std::optional<TensorView>& sizes);
float scale_log2_of(std::optional<float> scale, std::int64_t head_dim);

/// Key tiles that a video query tile sees, on average over the heads (as many query tiles see a key tile): what the
/// text's items are weighed against. 1 where there is no text.
double mean_window(const LaunchRequest& request, const TokenGrid& grid);

/// Query blocks of block_q rows in one head: the video's tiles, then the text.
std::int64_t query_blocks(const LaunchRequest& request, std::int32_t block_q);

/// Throws invalid_argument, naming the argument, where the device cannot read a tensor of the call.
void check_pointers(const Executor& executor, const AttentionForward& call, const Pattern& pattern);

/// The one of the two that the spec's family names.
void launch_attention(Executor& executor, const Kernel& kernel, const LaunchRequest& request, Stream stream);
void launch_sm80(Executor& executor, const Kernel& kernel, const LaunchRequest& request, Stream stream);
void launch_sm90(Executor& executor, const Kernel& kernel, const LaunchRequest& request, Stream stream);

} // namespace tilewright::operators
