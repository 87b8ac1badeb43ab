// Where a command computes: a GPU, the emulator, or the float64 reference; one way of handing over tensors for all.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "driver/device_memory.hpp"
#include "host_tensor.hpp"
#include "options.hpp"
#include <tilewright/runtime.hpp>

namespace tilewright::tools {

struct DeviceChoice {
  std::string device = "auto"; // cuda, cuda:N, emulator, reference; auto: a GPU if there is one, else the emulator
  std::uint64_t seed = 0;      // of the emulator
  std::string emulated = "sm_80";
  std::string schedule, key_schedule, query_schedule; // of the forward pass; of dk and dv, and of dq
  CacheChoice cache;

  void add_to(CLI::App& command);
};

/// How the kernel of a call was obtained.
struct Preparation {
  std::string problem;      // the closed problem's line
  std::string architecture; // that the kernel was compiled for; empty: the reference
  bool cached = false;      // false: it was compiled, or the reference computes without one
};

/// Bytes of a dense tensor.
inline std::size_t view_bytes(const TensorView& view) {
  std::size_t bytes = size_of(view.dtype);
  for (int axis = 0; axis < view.rank; ++axis)
    bytes *= static_cast<std::size_t>(view.extents[static_cast<std::size_t>(axis)]);
  return bytes;
}

class Device {
public:
  /// Throws UsageError for a name that is none, no_device, or what the emulator says where it cannot run.
  explicit Device(const DeviceChoice& choice);

  /// "NVIDIA H100 80GB HBM3 (cuda:0)", "emulator (sm_80, seed 0)", "reference".
  [[nodiscard]] const std::string& name() const noexcept { return name_; }
  [[nodiscard]] bool is_gpu() const noexcept { return cuda_ != nullptr; }
  [[nodiscard]] const std::shared_ptr<const cuda::CudaDevice>& gpu() const noexcept { return cuda_; }

  /// Null where the reference computes.
  [[nodiscard]] const std::shared_ptr<Executor>& executor() const noexcept { return executor_; }

  /// The same tensors in memory that this device reads: copied to a GPU, where the copies live as long as this object;
  /// themselves elsewhere.
  TensorView place(const TensorView& host);
  AttentionForward place(const AttentionForward& host);
  Pattern place(const Pattern& host);
  /// With a workspace of its own, and with device memory for views that have none.
  VideoSparseAttention place(const VideoSparseAttention& host);

  /// Copies a placed tensor back over the host's, after all work.
  void collect(const TensorView& placed, const TensorView& host);

  /// The inverse: the host's tensor over a placed one.
  void refresh(const TensorView& placed, const TensorView& host);

  /// Has the kernel of a placed call ready to launch.
  Preparation prepare(const AttentionForward& call, const Pattern& pattern);
  /// All its kernels.
  Preparation prepare(const VideoSparseAttention& call);

  /// Enqueues a placed call on a GPU's default stream; computes it elsewhere.
  void attention_forward(const AttentionForward& call, const Pattern& pattern);
  void video_sparse_attention(const VideoSparseAttention& call);

  /// Null: the reference.
  [[nodiscard]] Runtime* runtime() noexcept { return runtime_ ? &*runtime_ : nullptr; }

  /// The backward call of a placed forward call, whose lse is given: dout and gradients from host, with device memory
  /// for views that have none, and a workspace.
  AttentionBackward place(const AttentionBackward& host, const AttentionForward& placed, const Pattern& pattern);
  VideoSparseAttentionBackward place(const VideoSparseAttentionBackward& host, const VideoSparseAttention& placed);

  /// As for the forward pass.
  Preparation prepare(const VideoSparseAttentionBackward& call);
  void video_sparse_attention_backward(const VideoSparseAttentionBackward& call);
  Preparation prepare(const AttentionBackward& call, const Pattern& pattern);
  void attention_backward(const AttentionBackward& call, const Pattern& pattern);

  /// Milliseconds of the work: between two events on a GPU, else by the clock.
  [[nodiscard]] double measure(const std::function<void()>& work) const;

private:
  /// Memory that lives as long as this object, aligned to 256 bytes.
  void* allocate(std::size_t bytes);
  TensorView place_or_allocate(const TensorView& host);
  Preparation prepare_backward(const Problem& forward);
  cuda::DeviceMemory& owner_of(const TensorView& placed);
  void open_gpu_or_emulator(const DeviceChoice& choice, const RuntimeOptions& options);
  void open_gpu(int ordinal, const RuntimeOptions& options);
  void open_emulator(const DeviceChoice& choice, const RuntimeOptions& options);

  std::string name_ = "reference";
  std::shared_ptr<const cuda::CudaDevice> cuda_;
  std::shared_ptr<Executor> executor_;
  std::optional<Runtime> runtime_; // none: the reference

  std::vector<cuda::DeviceMemory> memory_;
  std::vector<std::vector<std::byte>> host_memory_;
};

} // namespace tilewright::tools
