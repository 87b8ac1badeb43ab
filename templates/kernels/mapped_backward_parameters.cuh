// What the backward kernels that read and write boxes of tensors (sm_90) are given besides. Compiled by the host and by
// the device.
#pragma once

#include "kernels/attention_backward_parameters.cuh"
#include "kernels/mapped_attention_parameters.cuh"

namespace tilewright {

/// The maps of one part of the tokens, in boxes of 64 rows:
///     attention_backward_key      own k, v    walked q, dout    gradient dk, dv
///     attention_backward_query    own q, dout    walked k, v    gradient dq, none
struct BackwardTensorMaps {
  TensorMap own[2], walked[2], gradient[2];
};

/// The one argument of the kernel.
template <class PatternParameters> struct MappedBackwardArguments {
  BackwardTensorMaps video, text;
  HeadPlacement own_heads[2], walked_heads[2], gradient_heads[2]; // of the video's maps
  WorkParameters work;                                            // of the rows that thread blocks own
  AttentionBackwardArguments<PatternParameters> backward;
};

} // namespace tilewright
