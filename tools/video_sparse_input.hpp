// Calls of video sparse attention out of a file's tensors, or out of random numbers: everything in host memory.
#pragma once

#include <filesystem>
#include <optional>

#include "attention_input.hpp"
#include "attention_run.hpp"
#include <tilewright/video_sparse.hpp>

namespace tilewright::tools {

/// The problem of the fine branch alone, without blending: what attend, bench and mask know how to read and draw.
Problem fine_problem(const Problem& whole);

/// A call without a workspace, that points into the tensors beside it. base has q, k, v, out and lse.
struct VideoSparseInput {
  AttentionInput base;
  std::optional<HostTensor> gate;
  VideoSparseAttention call;

  VideoSparseInput(const Problem& problem, AttentionInput attention, std::optional<HostTensor> gate_tensor);
};

/// q, k, v, and gate where the problem says blend=gated, out of a .safetensors file. topk from --topk or --sparsity.
VideoSparseInput read_video_sparse_input(const Problem& problem, const std::filesystem::path& path,
                                         const PatternChoice& choice);
VideoSparseInput random_video_sparse_input(const Problem& problem, const RandomShape& shape,
                                           const PatternChoice& choice);

/// attend: runs the call once; results are in base.out and base.lse. gradients: its gradient, too, where not null.
AttentionReport run_video_sparse(Device& device, VideoSparseInput& input, const Problem& problem,
                                 const Comparison& comparison, GradientTensors* gradients = nullptr);

} // namespace tilewright::tools
