// Every closed problem that the kernels are generated for: pattern x edges x text x dtype x head_dim x layout.
#pragma once

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

} // namespace tilewright::testing
