// The operators behind a few C functions that take raw device pointers, for compare_gpu.py and compare_backward.py
// (ctypes).
#include <cstdint>
#include <fstream>
#include <memory>
#include <string>

#include "cache/cache.hpp"
#include "driver/cuda_device.hpp"
#include "driver/cuda_executor.hpp"
#include "receiving_source.hpp"
#include <tilewright/error.hpp>
#include <tilewright/runtime.hpp>

using namespace tilewright;

extern "C" {

/// One forward call. Tensors are contiguous, [batch, tokens, heads, head_dim]. Mirrored by class Call in
/// shim.py.
struct TilewrightCall {
  void *q, *k, *v, *out, *lse;  // lse may be null
  const void *counts, *indices; // int32 [heads, query tiles] and [heads, query tiles, capacity]: block_list
  const std::int32_t* windows;  // host memory, 3 a head: sliding_tile
  std::int64_t batch, heads, kv_heads, tokens, head_dim, text_length, capacity; // text_length -1: no text
  std::int32_t fp16, pattern, window_count; // pattern: 0 dense, 1 sliding_tile, 2 block_list
  std::int32_t neighbours_share;            // block_list
  std::int32_t canvas[3], tile[3];
};

/// What the backward pass of a call takes besides. Tensors as those of the call. Mirrored by class Gradients in
/// compare_backward.py.
struct TilewrightGradients {
  void *dout, *dq, *dk, *dv, *workspace;      // workspace: may be null, to ask for its size
  void *key_counts, *offsets, *query_indices; // block_list: the lists by key tile; null: every call makes them
  std::int64_t workspace_bytes;
};
}

namespace {

thread_local std::string last_error, last_text;

template <class Body> int guarded(Body body) {
  try {
    body();
    return 0;
  } catch (const std::exception& error) {
    last_error = error.what();
    return 1;
  }
}

Extent3 extent(const std::int32_t (&values)[3]) { return {values[0], values[1], values[2]}; }

AttentionForward forward_of(const TilewrightCall& c) {
  const DataType type = c.fp16 != 0 ? DataType::fp16 : DataType::bf16;
  const auto view = [&](void* data, std::int64_t heads) {
    return TensorView::contiguous(data, type, {c.batch, c.tokens, heads, c.head_dim});
  };
  AttentionForward call{
      .q = view(c.q, c.heads), .k = view(c.k, c.kv_heads), .v = view(c.v, c.kv_heads), .out = view(c.out, c.heads)};
  if (c.lse != nullptr)
    call.lse = TensorView::contiguous(c.lse, DataType::float32, {c.batch, c.heads, c.tokens});
  return call;
}

Pattern pattern_of(const TilewrightCall& c) {
  if (c.pattern == 1) {
    SlidingTile sliding;
    sliding.canvas = extent(c.canvas);
    sliding.tile = extent(c.tile);
    for (std::int32_t i = 0; i < c.window_count; ++i)
      sliding.windows.push_back({c.windows[3 * i], c.windows[3 * i + 1], c.windows[3 * i + 2]});
    if (c.text_length >= 0)
      sliding.text_length = c.text_length;
    return sliding;
  }
  if (c.pattern == 2) {
    const std::int64_t tiles = extent(c.canvas).volume() / extent(c.tile).volume();
    BlockList lists;
    lists.canvas = extent(c.canvas);
    lists.tile = extent(c.tile);
    lists.counts = TensorView::contiguous(const_cast<void*>(c.counts), DataType::int32, {1, c.heads, tiles});
    lists.indices =
        TensorView::contiguous(const_cast<void*>(c.indices), DataType::int32, {1, c.heads, tiles, c.capacity});
    lists.neighbours_share = c.neighbours_share != 0;
    return lists;
  }
  return Dense{};
}

TransposeLists transposed_of(const TilewrightCall& c, const TilewrightGradients& g) {
  const BlockList lists = std::get<BlockList>(pattern_of(c));
  const std::int64_t tiles = lists.counts.extents[2];
  const auto view = [&](void* data, std::int64_t last) {
    return TensorView::contiguous(data, DataType::int32, {1, c.heads, last});
  };
  return {lists.counts, lists.indices, view(g.key_counts, tiles), view(g.offsets, tiles + 1),
          view(g.query_indices, tiles * c.capacity)};
}

AttentionBackward backward_of(const TilewrightCall& c, const TilewrightGradients& g) {
  const AttentionForward forward = forward_of(c);
  const auto like = [](TensorView view, void* data) {
    view.data = data;
    return view;
  };
  AttentionBackward call{.q = forward.q,
                         .k = forward.k,
                         .v = forward.v,
                         .out = forward.out,
                         .dout = like(forward.out, g.dout),
                         .lse = forward.lse.value(),
                         .dq = like(forward.q, g.dq),
                         .dk = like(forward.k, g.dk),
                         .dv = like(forward.v, g.dv),
                         .workspace = g.workspace,
                         .workspace_bytes = static_cast<std::size_t>(g.workspace_bytes)};
  if (g.offsets != nullptr)
    call.transposed = transposed_of(c, g);
  return call;
}

} // namespace

extern "C" {

const char* tilewright_last_error() { return last_error.c_str(); }

/// schedule: a schedule's text, or "" for the default. receive_only: the text of receive_only.cuh, or "" to compute.
void* tilewright_open(const char* schedule, const char* receive_only) {
  void* runtime = nullptr;
  guarded([&] {
    RuntimeOptions options;
    if (*schedule != 0)
      options.schedule = parse_schedule(schedule);
    auto device = std::make_shared<const cuda::CudaDevice>(-1);
    cache::Toolchain toolchain = cache::default_toolchain();
    if (*receive_only != 0)
      toolchain.generate = [text = std::string(receive_only)](const Spec& spec) {
        return benchmarks::receiving_source(spec, text);
      };
    runtime = new Runtime(make_cuda_executor(device, options.cache, {}, toolchain), options);
  });
  return runtime;
}

/// A runtime that insists on a family: "sm90" or "sm80".
void* tilewright_open_family(const char* family) {
  void* runtime = nullptr;
  guarded([&] {
    runtime = new Runtime(RuntimeOptions{.family = std::string(family) == "sm90" ? Family::sm90 : Family::sm80});
  });
  return runtime;
}

void tilewright_close(void* runtime) { delete static_cast<Runtime*>(runtime); }

/// 0, or 1 with the reason in tilewright_last_error().
int tilewright_forward(void* runtime, const TilewrightCall* call, void* stream) {
  return guarded(
      [&] { static_cast<Runtime*>(runtime)->attention_forward(forward_of(*call), pattern_of(*call), stream); });
}

/// Bytes of workspace, or -1.
std::int64_t tilewright_backward_workspace(const TilewrightCall* call, const TilewrightGradients* gradients) {
  std::int64_t bytes = -1;
  guarded([&] {
    bytes = static_cast<std::int64_t>(Runtime::workspace_bytes(backward_of(*call, *gradients), pattern_of(*call)));
  });
  return bytes;
}

int tilewright_transpose(void* runtime, const TilewrightCall* call, const TilewrightGradients* gradients,
                         void* stream) {
  return guarded([&] { static_cast<Runtime*>(runtime)->transpose_lists(transposed_of(*call, *gradients), stream); });
}

int tilewright_backward(void* runtime, const TilewrightCall* call, const TilewrightGradients* gradients, void* stream) {
  return guarded([&] {
    static_cast<Runtime*>(runtime)->attention_backward(backward_of(*call, *gradients), pattern_of(*call), stream);
  });
}

/// The spec that the call runs with, or null.
const char* tilewright_spec(void* runtime, const TilewrightCall* call) {
  const auto& of = *static_cast<const Runtime*>(runtime);
  return guarded(
             [&] { last_text = to_string(of.spec_of(Runtime::problem_of(forward_of(*call), pattern_of(*call)))); }) == 0
             ? last_text.c_str()
             : nullptr;
}
}
