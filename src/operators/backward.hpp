// The backward pass of one call: its workspace, and its kernels one after the other.
#pragma once

#include <functional>
#include <optional>
#include <vector>

#include "driver/executor.hpp"
#include "kernels/attention_backward_parameters.cuh"
#include "operators/call_shape.hpp"
#include "operators/launch.hpp"
#include "operators/runtime_state.hpp"
#include <tilewright/runtime.hpp>

namespace tilewright::operators {

/// The call's forward side: what it shares with the call that it is the gradient of.
AttentionForward forward_call(const AttentionBackward& call);

/// Checks everything about a call that can be known without touching its memory, but for the workspace. Throws as
/// check_call.
CallShape check_backward(const AttentionBackward& call, const Pattern& pattern);

/// How the workspace is laid out. Pointers are null where call.workspace is.
struct BackwardWorkspace {
  RowStatistics statistics;
  std::optional<TransposeLists> transposed; // block lists only; where the caller has brought them, not in the workspace
  std::size_t bytes = 0;
};
BackwardWorkspace lay_out(const AttentionBackward& call, const CallShape& shape, const Pattern& pattern);

/// The rows of one head in the row statistics.
void set_statistics_rows(RowStatistics& statistics, const CallShape& shape, const Pattern& pattern);

/// What every backward kernel is given. request.spec: of that kernel.
BackwardParameters backward_parameters(const AttentionBackward& call, const LaunchRequest& request,
                                       const BackwardWorkspace& workspace, const TileShares& shares);

/// One step; request.spec says which, and of which family.
void launch_backward(Executor& executor, const Kernel& kernel, const AttentionBackward& call,
                     const LaunchRequest& request, const BackwardWorkspace& workspace, const TileShares& shares,
                     Stream stream);

/// A call that has been checked as a whole and whose kernels have been compiled: nothing refuses it any more. It refers
/// to the call and its pattern.
struct BackwardPlan {
  const AttentionBackward& call;
  const Pattern& pattern;
  AttentionForward forward;
  CallShape shape;
  BackwardWorkspace workspace;
  std::optional<Prepared> transpose; // where the lists by key tile are not the caller's
  std::vector<Prepared> steps;
};
using Prepare = std::function<Prepared(const Problem&)>;
BackwardPlan plan_backward(Executor& executor, const AttentionBackward& call, const Pattern& pattern,
                           const Prepare& prepare, Stream stream);

/// shares: what the gradients of a tile's rows get in addition.
void launch_backward(Executor& executor, const BackwardPlan& plan, const TileShares& shares, Stream stream);

} // namespace tilewright::operators
