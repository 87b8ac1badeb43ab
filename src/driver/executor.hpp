// The launch interface: what operators need of a device. The CUDA driver and the CPU emulator implement it.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>

#include "compiler/report.hpp"
#include "kernels/tensor_map.cuh"
#include <tilewright/cache.hpp>
#include <tilewright/schedule.hpp>
#include <tilewright/types.hpp>

namespace tilewright {

/// Extents of a grid, a thread block or a cluster.
struct Dim3 {
  std::uint32_t x = 1, y = 1, z = 1;
};

struct LaunchShape {
  Dim3 grid;
  Dim3 block;
  Dim3 cluster;                   // 1x1x1: no cluster
  std::uint32_t shared_bytes = 0; // dynamic shared memory of one thread block
};

/// A kernel that is loaded and can be launched. Immutable and thread-safe.
class Kernel {
public:
  virtual ~Kernel() = default;
  [[nodiscard]] virtual const KernelReport& report() const noexcept = 0;
  [[nodiscard]] virtual KernelOrigin origin() const noexcept = 0; // how it was obtained the first time
};

/// A tensor map as the copy engine wants it (sm_90): a box cut out of a tensor of up to 5 dimensions, 128-byte
/// swizzle, zeros outside the tensor. Dimension 0 is the innermost; its stride is one element.
struct TensorMapRequest {
  void* data = nullptr;
  DataType dtype = DataType::bf16;
  std::uint32_t rank = 0;
  std::uint64_t extents[5] = {};       // elements
  std::uint64_t strides_bytes[5] = {}; // [0] is unused
  std::uint32_t box[5] = {};           // elements
};

struct DeviceDescription {
  std::string name;          // "NVIDIA H100 80GB HBM3", "emulator"
  Architecture architecture; // what kernels are compiled for
  std::int32_t multiprocessors = 1;
  std::int32_t shared_bytes_per_block = 0; // the most one thread block can have, dynamic
  std::int32_t ordinal = 0;
};

/// One device that runs kernels. Thread-safe.
class Executor {
public:
  virtual ~Executor() = default;

  [[nodiscard]] virtual const DeviceDescription& device() const noexcept = 0;

  /// The kernel of this spec, ready to launch; compiles it where no cache has it. The stream is asked only
  /// whether it is being captured: then a kernel that must be compiled or loaded is capture_in_progress.
  virtual std::shared_ptr<const Kernel> kernel(const Spec& spec, Stream stream) = 0;

  /// Enqueues one launch on the stream; parameters is the kernel's one by-value struct. The emulator runs it to the
  /// end.
  virtual void launch(const Kernel& kernel, const LaunchShape& shape, const void* parameters,
                      std::size_t parameter_bytes, Stream stream) = 0;

  virtual TensorMap encode(const TensorMapRequest& request) = 0;

  /// Throws invalid_argument unless the memory at this address can be read by kernels of this device. name is the
  /// argument's.
  virtual void check_pointer(const void* pointer, const char* name) const = 0;

  /// What its kernel cache has done. Zeros where it has none.
  [[nodiscard]] virtual CacheStatistics cache_statistics() const { return {}; }

  /// Copies device memory to the host after all work on the stream: synchronises. For debugging checks only.
  virtual void read_back(void* host, const void* device, std::size_t bytes, Stream stream) = 0;
};

} // namespace tilewright
