// One launch of a backward kernel of the sm90 family.
#pragma once

#include "driver/executor.hpp"
#include "kernels/attention_backward_parameters.cuh"
#include <tilewright/schedule.hpp>

namespace tilewright::operators {

/// spec: of attention_backward_key or attention_backward_query. arguments are complete but for the number of blocks,
/// which is decided here; the grids of a dense problem count blocks of spec's block_q and block_k. mean_window: tiles
/// that a video tile sees, on average over the heads (1 without text). Defined for the three patterns' parameters.
/// Throws unsupported, naming the tensor, where its strides fit no tensor map.
template <class PatternParameters>
void launch_backward_sm90(Executor& executor, const Kernel& kernel, const Spec& spec,
                          AttentionBackwardArguments<PatternParameters> arguments, std::int32_t batch,
                          double mean_window, Stream stream);

} // namespace tilewright::operators
