#include "calls.hpp"

#include <cstdint>
#include <string>
#include <utility>

#include <nanobind/stl/string.h>

#include "engine.hpp"
#include "views.hpp"
#include <tilewright/runtime.hpp>

namespace nb = nanobind;

namespace tilewright::python {
namespace {

// Python's lock is held while tensors are read, and released while an operator runs: the reference and a first compile
// take long.

Stream stream_from(std::uintptr_t handle) { return reinterpret_cast<Stream>(handle); }

std::optional<float> scale_from(nb::handle scale) {
  return scale.is_none() ? std::nullopt : std::optional(nb::cast<float>(scale));
}

AttentionForward forward_from(nb::handle q, nb::handle k, nb::handle v, nb::handle out, nb::handle lse, int layout_code,
                              nb::handle scale) {
  const TensorLayout layout = layout_from(layout_code);
  return {.q = attention_view(q, layout),
          .k = attention_view(k, layout),
          .v = attention_view(v, layout),
          .out = attention_view(out, layout),
          .lse = optional_view_from(lse),
          .layout = layout.layout,
          .scale = scale_from(scale)};
}

void attention_forward(Engine& engine, nb::handle q, nb::handle k, nb::handle v, nb::handle out, nb::handle lse,
                       const Pattern& pattern, int layout_code, nb::handle scale, std::uintptr_t stream) {
  const AttentionForward call = forward_from(q, k, v, out, lse, layout_code, scale);
  const nb::gil_scoped_release unlocked;
  engine.attention_forward(call, pattern, stream_from(stream));
}

void attention_backward(Engine& engine, nb::handle q, nb::handle k, nb::handle v, nb::handle out, nb::handle lse,
                        nb::handle dout, nb::handle dlse, nb::handle dq, nb::handle dk, nb::handle dv,
                        const Pattern& pattern, int layout_code, nb::handle scale, std::uintptr_t stream,
                        nb::handle allocate) {
  const TensorLayout layout = layout_from(layout_code);
  AttentionBackward call{.q = attention_view(q, layout),
                         .k = attention_view(k, layout),
                         .v = attention_view(v, layout),
                         .out = attention_view(out, layout),
                         .dout = attention_view(dout, layout),
                         .lse = view_from(lse),
                         .dq = attention_view(dq, layout),
                         .dk = attention_view(dk, layout),
                         .dv = attention_view(dv, layout),
                         .layout = layout.layout,
                         .scale = scale_from(scale),
                         .dlse = optional_view_from(dlse)};
  call.workspace_bytes = engine.workspace_bytes(call, pattern);
  const Workspace workspace(allocate, call.workspace_bytes);
  call.workspace = workspace.data();
  const nb::gil_scoped_release unlocked;
  engine.attention_backward(call, pattern, stream_from(stream));
}

std::string problem_of(nb::handle q, nb::handle k, nb::handle v, nb::handle out, const Pattern& pattern,
                       int layout_code) {
  return to_string(Runtime::problem_of(forward_from(q, k, v, out, nb::none(), layout_code, nb::none()), pattern));
}

VideoSparseAttention video_sparse_from(const VideoSparseAttention& pattern, nb::handle q, nb::handle k, nb::handle v,
                                       nb::handle out, nb::handle gate, nb::handle lse, nb::handle fine,
                                       int layout_code, nb::handle scale) {
  const TensorLayout layout = layout_from(layout_code);
  VideoSparseAttention call = pattern;
  call.q = attention_view(q, layout);
  call.k = attention_view(k, layout);
  call.v = attention_view(v, layout);
  call.out = attention_view(out, layout);
  call.gate = optional_attention_view(gate, layout);
  call.lse = optional_view_from(lse);
  call.fine = optional_attention_view(fine, layout);
  call.layout = layout.layout;
  call.scale = scale_from(scale);
  return call;
}

/// Returns how many bytes of the memory that was allocated the backward pass wants, at its beginning.
std::size_t video_sparse_attention(Engine& engine, nb::handle q, nb::handle k, nb::handle v, nb::handle out,
                                   nb::handle gate, nb::handle lse, nb::handle fine,
                                   const VideoSparseAttention& pattern, int layout_code, nb::handle scale,
                                   std::uintptr_t stream, nb::handle allocate) {
  VideoSparseAttention call = video_sparse_from(pattern, q, k, v, out, gate, lse, fine, layout_code, scale);
  const Engine::WorkspaceBytes bytes = engine.workspace_bytes(call);
  const Workspace workspace(allocate, bytes.whole);
  call.workspace = workspace.data();
  call.workspace_bytes = bytes.whole;
  const nb::gil_scoped_release unlocked;
  engine.video_sparse_attention(call, stream_from(stream));
  return bytes.kept;
}

/// kept: (address, owner) of what the forward call allocated, or of a copy of the part that it said.
void video_sparse_attention_backward(Engine& engine, nb::handle q, nb::handle k, nb::handle v, nb::handle gate,
                                     nb::handle lse, nb::handle fine, nb::object kept, std::size_t kept_bytes,
                                     nb::handle dout, nb::handle dq, nb::handle dk, nb::handle dv, nb::handle dgate,
                                     const VideoSparseAttention& pattern, int layout_code, nb::handle scale,
                                     std::uintptr_t stream, nb::handle allocate) {
  const TensorLayout layout = layout_from(layout_code);
  const Workspace of_forward(std::move(kept));
  VideoSparseAttentionBackward call;
  // The backward pass does not look at out, which is not kept: something of its type and extents stands there.
  call.forward = video_sparse_from(pattern, q, k, v, fine, gate, lse, fine, layout_code, scale);
  call.forward.workspace = of_forward.data();
  call.forward.workspace_bytes = kept_bytes;
  call.dout = attention_view(dout, layout);
  call.dq = attention_view(dq, layout);
  call.dk = attention_view(dk, layout);
  call.dv = attention_view(dv, layout);
  call.dgate = optional_attention_view(dgate, layout);
  call.workspace_bytes = engine.workspace_bytes(call);
  const Workspace workspace(allocate, call.workspace_bytes);
  call.workspace = workspace.data();
  const nb::gil_scoped_release unlocked;
  engine.video_sparse_attention_backward(call, stream_from(stream));
}

std::string video_sparse_problem_of(nb::handle q, nb::handle k, nb::handle v, nb::handle out, nb::handle gate,
                                    const VideoSparseAttention& pattern, int layout_code) {
  return to_string(Runtime::problem_of(
      video_sparse_from(pattern, q, k, v, out, gate, nb::none(), nb::none(), layout_code, nb::none())));
}

void pool_tiles(Engine& engine, nb::handle tokens, nb::handle means, nb::handle canvas, nb::handle tile,
                nb::handle sizes, int layout_code, std::uintptr_t stream) {
  const TensorLayout layout = layout_from(layout_code);
  const PoolTiles call{.tokens = attention_view(tokens, layout),
                       .means = view_from(means),
                       .layout = layout.layout,
                       .canvas = extent_from(canvas),
                       .tile = extent_from(tile),
                       .sizes = optional_view_from(sizes)};
  const nb::gil_scoped_release unlocked;
  engine.pool_tiles(call, stream_from(stream));
}

void select_tiles(Engine& engine, nb::handle query_means, nb::handle key_means, nb::handle value_means,
                  nb::handle counts, nb::handle indices, nb::handle coarse_output, nb::handle coarse_lse,
                  nb::handle key_sizes, nb::handle scale, std::uintptr_t stream, nb::handle allocate) {
  SelectTiles call;
  call.query_means = view_from(query_means);
  call.key_means = view_from(key_means);
  call.value_means = optional_view_from(value_means);
  call.counts = view_from(counts);
  call.indices = view_from(indices);
  call.coarse_output = optional_view_from(coarse_output);
  call.coarse_lse = optional_view_from(coarse_lse);
  call.key_sizes = optional_view_from(key_sizes);
  call.scale = scale_from(scale);
  call.workspace_bytes = engine.workspace_bytes(call);
  const Workspace workspace(allocate, call.workspace_bytes);
  call.workspace = workspace.data();
  const nb::gil_scoped_release unlocked;
  engine.select_tiles(call, stream_from(stream));
}

void list_mask(Engine& engine, nb::handle mask, nb::handle counts, nb::handle indices, std::uintptr_t stream) {
  const ListMask call{view_from(mask), view_from(counts), view_from(indices)};
  const nb::gil_scoped_release unlocked;
  engine.list_mask(call, stream_from(stream));
}

} // namespace

void define_calls(nb::module_& module) {
  const nb::arg required;
  const auto optional = nb::arg().none();
  module.def("attention_forward", &attention_forward, required, required, required, required, required, optional,
             required, required, optional, required);
  module.def("attention_backward", &attention_backward, required, required, required, required, required, required,
             required, optional, required, required, required, required, required, optional, required, required);
  module.def("problem_of", &problem_of);
  module.def("video_sparse_attention", &video_sparse_attention, required, required, required, required, required,
             optional, optional, optional, required, required, optional, required, required);
  module.def("video_sparse_attention_backward", &video_sparse_attention_backward, required, required, required,
             required, optional, required, required, optional, required, required, required, required, required,
             optional, required, required, optional, required, required);
  module.def("video_sparse_problem_of", &video_sparse_problem_of, required, required, required, required, optional,
             required, required);
  module.def("pool_tiles", &pool_tiles, required, required, required, required, required, optional, required, required);
  module.def("select_tiles", &select_tiles, required, required, required, optional, required, required, optional,
             optional, optional, optional, required, required);
  module.def("list_mask", &list_mask);
}

} // namespace tilewright::python
