// Device's backward calls.
#include "device.hpp"

#include "reference/tensor.hpp"
#include <tilewright/reference.hpp>

namespace tilewright::tools {

AttentionBackward Device::place(const AttentionBackward& host, const AttentionForward& placed, const Pattern& pattern) {
  AttentionBackward call = host;
  call.q = placed.q;
  call.k = placed.k;
  call.v = placed.v;
  call.out = placed.out;
  call.lse = placed.lse.value();
  call.layout = placed.layout;
  call.scale = placed.scale;
  for (TensorView* view : {&call.dout, &call.dq, &call.dk, &call.dv})
    *view = place_or_allocate(*view);
  call.workspace_bytes = Runtime::workspace_bytes(call, pattern);
  call.workspace = allocate(call.workspace_bytes);
  return call;
}

VideoSparseAttentionBackward Device::place(const VideoSparseAttentionBackward& host,
                                           const VideoSparseAttention& placed) {
  VideoSparseAttentionBackward call = host;
  call.forward = placed;
  for (TensorView* view : {&call.dout, &call.dq, &call.dk, &call.dv})
    *view = place_or_allocate(*view);
  if (call.dgate)
    call.dgate = place_or_allocate(*call.dgate);
  call.workspace_bytes = Runtime::workspace_bytes(call);
  call.workspace = allocate(call.workspace_bytes);
  return call;
}

Preparation Device::prepare_backward(const Problem& forward) {
  Preparation preparation{to_string(forward), "", runtime_.has_value()};
  if (!runtime_)
    return preparation;
  for (const Problem& step : backward_steps(forward)) {
    const Spec spec = runtime_->spec_of(step);
    const auto kernel = runtime_->executor().kernel(spec, nullptr);
    preparation.architecture = to_string(spec.architecture);
    preparation.cached = preparation.cached && kernel->origin() != KernelOrigin::compiled;
  }
  return preparation;
}

Preparation Device::prepare(const AttentionBackward& call, const Pattern& pattern) {
  return prepare_backward(Runtime::problem_of(call, pattern));
}

Preparation Device::prepare(const VideoSparseAttentionBackward& call) {
  return prepare_backward(Runtime::problem_of(call));
}

void Device::attention_backward(const AttentionBackward& call, const Pattern& pattern) {
  if (runtime_) {
    runtime_->attention_backward(call, pattern);
    return;
  }
  const reference::Gradients gradients = reference::attention_backward(call, pattern);
  reference::write_tensor(call.dq, call.layout, gradients.dq);
  reference::write_tensor(call.dk, call.layout, gradients.dk);
  reference::write_tensor(call.dv, call.layout, gradients.dv);
}

void Device::video_sparse_attention_backward(const VideoSparseAttentionBackward& call) {
  if (runtime_) {
    runtime_->video_sparse_attention_backward(call);
    return;
  }
  const Layout layout = call.forward.layout;
  const reference::VideoSparseGradients gradients = reference::video_sparse_attention_backward(call);
  reference::write_tensor(call.dq, layout, gradients.dq);
  reference::write_tensor(call.dk, layout, gradients.dk);
  reference::write_tensor(call.dv, layout, gradients.dv);
  if (call.dgate)
    reference::write_tensor(*call.dgate, layout, gradients.dgate);
}

void* Device::allocate(std::size_t bytes) {
  if (cuda_ != nullptr)
    return memory_.emplace_back(cuda_, bytes).data();
  constexpr std::size_t alignment = 256;
  void* data = host_memory_.emplace_back(bytes + alignment).data();
  std::size_t space = bytes + alignment;
  return std::align(alignment, bytes, data, space);
}

TensorView Device::place_or_allocate(const TensorView& host) {
  if (host.data != nullptr)
    return place(host);
  TensorView placed = host;
  placed.data = allocate(view_bytes(host));
  return placed;
}

} // namespace tilewright::tools
