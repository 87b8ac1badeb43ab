// The runtime: operators on one device. The one header that most host applications need.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string_view>

#include <tilewright/cache.hpp>
#include <tilewright/error.hpp>
#include <tilewright/pattern.hpp>
#include <tilewright/problem.hpp>
#include <tilewright/schedule.hpp>
#include <tilewright/types.hpp>
#include <tilewright/video_sparse.hpp>

namespace tilewright {

class Executor;

/// The tensors of one forward call.
///
/// q, k, v, out  bf16 or fp16, [batch, tokens, heads, head_dim] (raster) or [batch, heads, tokens, head_dim]
///               (tiled); head_dim has stride 1, every other stride is a multiple of 16 bytes, pointers are
///               aligned to 16 bytes. k and v have heads that divide q's (grouped heads).
/// lse           float32 [batch, heads, query tokens], natural logarithm, tokens with stride 1; optional
/// scale         multiplies q k^T; 1/sqrt(head_dim) where none is given
/// coarse        float32 [batch, heads, query tiles, head_dim], contiguous, aligned to 16 bytes, with a BlockList only:
///               out = attention + gate * coarse of the query's tile, rounded once; padding rows stay 0
/// gate          elementwise, type and extents of out; 1 where none is given; with coarse only
/// fine          the attention before it is blended, type and extents of out; optional, with coarse only
struct AttentionForward {
  TensorView q, k, v, out;
  std::optional<TensorView> lse{};
  Layout layout = Layout::raster;
  std::optional<float> scale{};
  std::optional<TensorView> coarse{}, gate{}, fine{};
};

/// The tensors of one backward call: the gradients of a loss with respect to q, k and v, from its gradients with
/// respect to out and, where the loss depends on it, lse.
///
/// q, k, v, out, lse, scale, layout  as of the forward call, whose results out and lse (not optional here) are
/// dout       type and extents of out
/// dlse       float32, extents of lse, tokens with stride 1; optional: 0. (Who merges attention over parts of the keys,
///            as ring attention does, weighs the parts by their lse.)
/// dq, dk, dv type and extents of q, k and v: all of their rows are written, 0 where a row is padding, has no keys, or
///            is seen by no query
/// workspace  device memory, aligned to 128 bytes, of Runtime::workspace_bytes, for this call alone until it has
///            finished
/// transposed with a BlockList only: its lists by key tile, from Runtime::transpose_lists, for callers whose lists stay
///            the same over several calls; optional: otherwise every call makes them in its workspace. Of these
///            tensors offsets and query_indices are read
///
/// Gradients are the same bits in every run.
struct AttentionBackward {
  TensorView q, k, v, out, dout, lse, dq, dk, dv;
  Layout layout = Layout::raster;
  std::optional<float> scale{};
  void* workspace = nullptr;
  std::size_t workspace_bytes = 0;
  std::optional<TransposeLists> transposed{};
  std::optional<TensorView> dlse{};
};

struct RuntimeOptions {
  int device = -1;                    // CUDA ordinal; -1: the calling thread's current device, else 0
  Family family = Family::automatic;  // insist on an attention kernel's family; unsupported says why it is refused
  std::optional<Schedule> schedule{}; // insist on an attention kernel's schedule, for measuring
  std::optional<Schedule> backward_key_schedule{}, backward_query_schedule{}; // the same for dk and dv, and for dq
  CacheOptions cache{};
  std::function<void(std::string_view)> on_message{}; // warnings in three parts; default: none
};

/// Operators on one device. Thread-safe; calls enqueue work on the caller's stream and return; nothing
/// synchronises and nothing is allocated on the device. Several runtimes, for several devices, may live in one process.
class Runtime {
public:
  /// A CUDA device. Throws no_device, saying what was looked for.
  explicit Runtime(RuntimeOptions options = {});
  /// Any executor, for example tilewright::make_emulator().
  explicit Runtime(std::shared_ptr<Executor> executor, RuntimeOptions options = {});
  ~Runtime();
  Runtime(Runtime&&) noexcept;
  Runtime& operator=(Runtime&&) noexcept;

  /// out = softmax(scale q k^T + mask) v, with the mask that the pattern describes. Throws before anything is
  /// enqueued or written; safe inside graph capture once the problem is prepared.
  void attention_forward(const AttentionForward& call, const Pattern& pattern, Stream stream = nullptr);

  /// dq, dk and dv of attention_forward with the same pattern. As above: throws before anything is enqueued or written;
  /// safe inside graph capture once prepare_backward has had the problem.
  void attention_backward(const AttentionBackward& call, const Pattern& pattern, Stream stream = nullptr);

  /// Bytes of the call's workspace; its workspace may still be null. It depends on extents alone.
  [[nodiscard]] static std::size_t workspace_bytes(const AttentionBackward& call, const Pattern& pattern);

  /// Video sparse attention and its parts (tilewright/video_sparse.hpp). As above: they throw before anything is
  /// enqueued or written, and are safe inside graph capture once their problems are prepared.
  void video_sparse_attention(const VideoSparseAttention& call, Stream stream = nullptr);
  /// Its first two steps alone: pooling, coarse attention and selection, into the workspace. out, gate and fine are
  /// checked but not written.
  void video_sparse_selection(const VideoSparseAttention& call, Stream stream = nullptr);
  /// dq, dk, dv and dgate of video_sparse_attention; safe inside graph capture once prepare_backward has had the
  /// problem.
  void video_sparse_attention_backward(const VideoSparseAttentionBackward& call, Stream stream = nullptr);
  void pool_tiles(const PoolTiles& call, Stream stream = nullptr);
  void select_tiles(const SelectTiles& call, Stream stream = nullptr);
  void transpose_lists(const TransposeLists& call, Stream stream = nullptr);
  void list_mask(const ListMask& call, Stream stream = nullptr);

  /// The layout of a call's workspace, its pointers relative to call.workspace (which may still be null: then `bytes`
  /// is what to allocate). It depends on the device, not on what the tensors hold.
  [[nodiscard]] VideoSparseWorkspace workspace_of(const VideoSparseAttention& call) const;
  [[nodiscard]] std::size_t workspace_bytes(const SelectTiles& call) const;
  /// Bytes of the call's workspace; both workspaces may still be null. They depend on extents alone.
  [[nodiscard]] static std::size_t workspace_bytes(const VideoSparseAttentionBackward& call);

  /// Compiles, or fetches from the cache, and loads every variant of the problem; launches nothing.
  void prepare(const Problem& problem);
  /// The same for the backward pass of a forward problem (attention_forward or video_sparse_attention).
  void prepare_backward(const Problem& forward);

  /// The problem of a call, with nothing open. What `attention_forward` looks its kernel up by.
  [[nodiscard]] static Problem problem_of(const AttentionForward& call, const Pattern& pattern);
  [[nodiscard]] static Problem problem_of(const VideoSparseAttention& call);
  [[nodiscard]] static Problem problem_of(const PoolTiles& call);
  [[nodiscard]] static Problem problem_of(const SelectTiles& call);
  [[nodiscard]] static Problem problem_of(const ListMask& call);
  /// The forward problem that the call is the gradient of.
  [[nodiscard]] static Problem problem_of(const AttentionBackward& call, const Pattern& pattern);
  [[nodiscard]] static Problem problem_of(const VideoSparseAttentionBackward& call);

  /// The spec that this runtime uses for a closed problem. Throws unsupported with the reasons.
  [[nodiscard]] Spec spec_of(const Problem& problem) const;

  /// What the kernel cache has done for this runtime's executor so far: how many kernels came from where, and what went
  /// wrong. Thread-safe; the counts are each exact, but not read at one moment. The emulator counts disk_hits and
  /// compiles only. `tilewright cache stats` tells of the folder instead: what lies in it, whoever put it there.
  [[nodiscard]] CacheStatistics cache_statistics() const;

  [[nodiscard]] Executor& executor() noexcept;

private:
  void run_video_sparse(const VideoSparseAttention& call, bool attend, Stream stream);

  struct State;
  std::unique_ptr<State> state_;
};

} // namespace tilewright
