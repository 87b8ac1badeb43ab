#include "engine.hpp"

#include <tilewright/reference.hpp>

namespace tilewright::python {

// The reference takes more than kernels do; problem_of has their errors, which a laptop shall see too.

void Engine::attention_forward(const AttentionForward& call, const Pattern& pattern, Stream stream) {
  if (kind_ == Kind::runtime)
    return runtime_->attention_forward(call, pattern, stream);
  (void)Runtime::problem_of(call, pattern);
  if (kind_ == Kind::reference)
    reference::attention_forward_into(call, pattern);
}

std::size_t Engine::workspace_bytes(const AttentionBackward& call, const Pattern& pattern) const {
  return kind_ == Kind::reference ? 0 : Runtime::workspace_bytes(call, pattern);
}

void Engine::attention_backward(const AttentionBackward& call, const Pattern& pattern, Stream stream) {
  if (kind_ == Kind::runtime)
    return runtime_->attention_backward(call, pattern, stream);
  (void)Runtime::problem_of(call, pattern);
  if (kind_ == Kind::reference)
    reference::attention_backward_into(call, pattern);
}

Engine::WorkspaceBytes Engine::workspace_bytes(const VideoSparseAttention& call) const {
  if (!runtime_)
    return {};
  const VideoSparseWorkspace workspace = runtime_->workspace_of(call);
  return {workspace.bytes, workspace.bytes - workspace.strip_bytes};
}

void Engine::video_sparse_attention(const VideoSparseAttention& call, Stream stream) {
  if (kind_ == Kind::runtime)
    return runtime_->video_sparse_attention(call, stream);
  (void)Runtime::problem_of(call);
  if (kind_ == Kind::reference)
    reference::video_sparse_attention_into(call);
}

std::size_t Engine::workspace_bytes(const VideoSparseAttentionBackward& call) const {
  return kind_ == Kind::reference ? 0 : Runtime::workspace_bytes(call);
}

void Engine::video_sparse_attention_backward(const VideoSparseAttentionBackward& call, Stream stream) {
  if (kind_ == Kind::runtime)
    return runtime_->video_sparse_attention_backward(call, stream);
  (void)Runtime::problem_of(call);
  if (kind_ == Kind::reference)
    reference::video_sparse_attention_backward_into(call);
}

void Engine::pool_tiles(const PoolTiles& call, Stream stream) {
  if (kind_ == Kind::runtime)
    return runtime_->pool_tiles(call, stream);
  (void)Runtime::problem_of(call);
  if (kind_ == Kind::reference)
    reference::pool_tiles_into(call);
}

std::size_t Engine::workspace_bytes(const SelectTiles& call) const {
  return runtime_ ? runtime_->workspace_bytes(call) : 0;
}

void Engine::select_tiles(const SelectTiles& call, Stream stream) {
  if (kind_ == Kind::runtime)
    return runtime_->select_tiles(call, stream);
  (void)Runtime::problem_of(call);
  if (kind_ == Kind::reference)
    reference::select_tiles_into(call);
}

void Engine::list_mask(const ListMask& call, Stream stream) {
  if (kind_ == Kind::runtime)
    return runtime_->list_mask(call, stream);
  (void)Runtime::problem_of(call);
  if (kind_ == Kind::reference)
    reference::list_mask(call);
}

void Engine::prepare(const std::string& problem, bool backward) {
  const Problem parsed = parse_problem(problem);
  if (!runtime_)
    return validate(parsed);
  runtime_->prepare(parsed);
  if (backward)
    runtime_->prepare_backward(parsed);
}

CacheStatistics Engine::cache_statistics() const {
  return kind_ == Kind::runtime ? runtime_->cache_statistics() : CacheStatistics{};
}

} // namespace tilewright::python
