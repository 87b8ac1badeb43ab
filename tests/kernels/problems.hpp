// Every closed problem that the kernels are generated for: pattern x edges x text x dtype x head_dim x layout.
#pragma once

#include <algorithm>
#include <string>
#include <string_view>
#include <vector>

#include <tilewright/problem.hpp>

namespace tilewright::testing {

/// tile 6x8x8 for sliding tiles, with the window named and per head; 4x4x4 (query blocks of 64 rows) and
/// 4x8x8 (of 128) for block lists.
inline std::vector<Problem> all_closed_problems() {
  std::vector<Problem> patterns;
  patterns.push_back({.pattern = PatternKind::dense});
  for (const Extent3 window : {Extent3{3, 3, 3}, Extent3{}})
    patterns.push_back({.tile = {6, 8, 8},
                        .key_tile = {6, 8, 8},
                        .window = window,
                        .pattern = PatternKind::sliding_tile,
                        .text = Text::open});
  for (const Extent3 tile : {Extent3{4, 4, 4}, Extent3{4, 8, 8}})
    patterns.push_back({.tile = tile, .key_tile = tile, .pattern = PatternKind::block_list});
  std::vector<Problem> problems;
  for (Problem problem : patterns) {
    for (const DataType dtype : {DataType::bf16, DataType::fp16}) {
      for (const std::int32_t head_dim : {64, 128}) {
        for (const Layout layout : {Layout::raster, Layout::tiled}) {
          problem.dtype = dtype;
          problem.head_dim = head_dim;
          problem.layout = layout;
          for (const Problem& closed : closed_variants(problem))
            problems.push_back(closed);
        }
      }
    }
  }
  return problems;
}

/// The kernels of video sparse attention: those that work on tiles as a whole, and block lists with each blend.
inline std::vector<Problem> video_sparse_problems() {
  std::vector<Problem> problems{parse_problem("list_mask:"), parse_problem("transpose_lists:")};
  for (const char* tile : {"4x4x4", "4x8x8"})
    for (const char* blend : {"gated", "coarse"})
      for (const char* type : {"bf16,head_dim=128", "fp16,head_dim=64", "bf16,head_dim=64", "fp16,head_dim=128"})
        for (const char* layout : {"raster", "tiled"}) {
          // The gate takes the most registers, head_dim 128 too: other forms are compiled once.
          const bool plain = std::string_view(blend) == "gated" && std::string_view(tile) == "4x4x4";
          if (!plain && std::string_view(type) != "bf16,head_dim=128")
            continue;
          const std::string line = std::string("video_sparse_attention:tile=") + tile + ",blend=" + blend +
                                   ",dtype=" + type + ",layout=" + layout;
          for (const Problem& closed : closed_variants(parse_problem(line)))
            if (std::find(problems.begin(), problems.end(), closed) == problems.end())
              problems.push_back(closed);
        }
  return problems;
}

/// The kernels of its gradient, other than attention's: those that need most registers, and each type and head size.
inline std::vector<Problem> video_sparse_gradient_problems() {
  std::vector<Problem> problems;
  for (const char* line :
       {"dtype=bf16,head_dim=128,layout=raster,edges=clipped", "dtype=bf16,head_dim=128,layout=tiled,edges=sized",
        "dtype=fp16,head_dim=64,layout=raster,edges=full", "dtype=bf16,head_dim=64,layout=tiled,edges=clipped",
        "dtype=fp16,head_dim=128,layout=raster,edges=clipped,tile=4x8x8",
        "dtype=bf16,head_dim=128,layout=raster,edges=clipped,blend=coarse"})
    for (const Problem& step : backward_steps(parse_problem(std::string("video_sparse_attention:") + line)))
      if (!is_backward(step.op) && std::find(problems.begin(), problems.end(), step) == problems.end())
        problems.push_back(step);
  return problems;
}

} // namespace tilewright::testing
