// What the calls of video sparse attention, forward and backward, share: their fine branch and their workspace.
#pragma once

#include <cstddef>

#include "driver/executor.hpp"
#include <tilewright/pattern.hpp>
#include <tilewright/runtime.hpp>

namespace tilewright::operators {

constexpr std::size_t workspace_alignment = 256;

inline Canvas key_canvas_of(const VideoSparseAttention& call) { return call.key_canvas.value_or(call.canvas); }

/// The selection from the means in the workspace, into its lists.
SelectTiles select_call(const VideoSparseAttention& call, const VideoSparseWorkspace& workspace);

/// The fine branch: a block list whose lists stand in the workspace.
struct FineCall {
  AttentionForward call;
  BlockList pattern;
};
FineCall fine_call(const VideoSparseAttention& call, const VideoSparseWorkspace& workspace);

/// The same before there is a workspace, which then stands at an address that stands for all: for checking the rest.
FineCall placed_fine_call(const VideoSparseAttention& call);

/// The workspace without its strips. Places follow each other at multiples of the alignment. Throws invalid_argument
/// where the tensors have no workspace.
VideoSparseWorkspace lay_out(const VideoSparseAttention& call);

/// Throws invalid_argument, naming the argument, where the device cannot read a tensor of the call.
void check_pointers(const Executor& executor, const VideoSparseAttention& call);

} // namespace tilewright::operators
