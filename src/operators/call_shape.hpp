// A forward call, checked: the sizes that everything behind it relies on.
#pragma once

#include <cstdint>
#include <initializer_list>
#include <optional>
#include <string>

#include "kernels/attention_parameters.cuh"
#include <tilewright/pattern.hpp>
#include <tilewright/problem.hpp>
#include <tilewright/runtime.hpp>

namespace tilewright::operators {

struct CallShape {
  std::int64_t batch = 0, heads = 0, kv_heads = 0;
  std::int64_t query_tokens = 0, key_tokens = 0; // rows of the tensors, text and padding included
  std::int64_t head_dim = 0;
  Extent3 query_canvas{}, key_canvas{}; // dense: 1 x 1 x length
  std::int64_t text_rows = 0;           // rows of the tensors behind the video's
  std::int64_t text_length = 0;         // the valid ones among them, the first
};

/// Checks everything about a call that can be known without touching its memory. Throws invalid_argument, or
/// unsupported for what is sound but has no kernel; the message names the argument, its value and what is allowed.
CallShape check_call(const AttentionForward& call, const Pattern& pattern);

/// The closed problem of a checked call. Throws what validate() throws, for a tile that no kernel takes.
Problem problem_of_checked(const AttentionForward& call, const Pattern& pattern, const CallShape& shape);

/// Throws invalid_argument.
[[noreturn]] void refuse(std::string problem, std::string allowed, std::string remedy);

/// What the calls of several operators check. Each throws invalid_argument and names the argument.
/// check_tokens: a canvas's tokens without text. check_dense: contiguous, of just this type and these extents.
/// check_tile_sizes: the number of valid tokens of each tile, where given.
void check_tokens(const TensorView& tensor, const char* name, Layout layout, const Extent3& canvas,
                  const Extent3& tile);
void check_dense(const TensorView& tensor, const char* name, DataType dtype,
                 std::initializer_list<std::int64_t> extents);
void check_tile_sizes(const std::optional<TensorView>& sizes, const char* name, std::int64_t batch, std::int64_t tiles,
                      Layout layout);
void check_lists_of(const TensorView& counts, const TensorView& indices, std::int64_t batch, std::int64_t heads,
                    std::int64_t tiles);

/// A tensor with the type and the extents of another, which has been checked. written: no two elements share memory.
void check_like(const TensorView& tensor, const char* name, const TensorView& like, const char* like_name,
                Layout layout, bool written);

/// A log-sum-exp of the call's queries, or its gradient.
void check_log_sum_exp(const TensorView& lse, const std::string& name, const CallShape& shape, bool written);

/// A tensor's strides by meaning, in elements.
Strides strides_of(const TensorView& tensor, Layout layout);

} // namespace tilewright::operators
