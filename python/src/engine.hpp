// What a tilewright.Runtime holds: a runtime of the library, or the reference, which is functions only.
#pragma once

#include <cstddef>
#include <memory>
#include <string>
#include <utility>

#include <tilewright/runtime.hpp>

namespace tilewright::python {

/// Where operators run. Calls are those of tilewright::Runtime.
class Engine {
public:
  enum class Kind {
    runtime,
    reference,
    idle // checks its calls and runs nothing, for measuring what Python costs
  };

  explicit Engine(std::unique_ptr<Runtime> runtime) : kind_(Kind::runtime), runtime_(std::move(runtime)) {}
  explicit Engine(Kind kind) : kind_(kind) {}

  void attention_forward(const AttentionForward& call, const Pattern& pattern, Stream stream);
  [[nodiscard]] std::size_t workspace_bytes(const AttentionBackward& call, const Pattern& pattern) const;
  void attention_backward(const AttentionBackward& call, const Pattern& pattern, Stream stream);

  /// Of what an operator needs, and of what of it the backward pass wants: the first part.
  struct WorkspaceBytes {
    std::size_t whole = 0, kept = 0;
  };
  [[nodiscard]] WorkspaceBytes workspace_bytes(const VideoSparseAttention& call) const;
  void video_sparse_attention(const VideoSparseAttention& call, Stream stream);
  [[nodiscard]] std::size_t workspace_bytes(const VideoSparseAttentionBackward& call) const;
  void video_sparse_attention_backward(const VideoSparseAttentionBackward& call, Stream stream);
  void pool_tiles(const PoolTiles& call, Stream stream);
  [[nodiscard]] std::size_t workspace_bytes(const SelectTiles& call) const;
  void select_tiles(const SelectTiles& call, Stream stream);
  void list_mask(const ListMask& call, Stream stream);

  void prepare(const std::string& problem, bool backward);
  [[nodiscard]] CacheStatistics cache_statistics() const; // zeros where nothing is compiled

private:
  Kind kind_;
  std::unique_ptr<Runtime> runtime_; // of Kind::runtime
};

} // namespace tilewright::python
