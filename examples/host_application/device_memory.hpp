// Where the tensors lie and what computes: the two things that differ between a GPU and the emulator.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>

#include <tilewright/emulator.hpp>
#include <tilewright/runtime.hpp>

#ifdef HOST_APPLICATION_CUDA
#include <cuda_runtime_api.h>

inline bool has_gpu() {
  int count = 0;
  return cudaGetDeviceCount(&count) == cudaSuccess && count > 0;
}

/// Managed memory: the host fills it, the GPU reads it.
inline std::shared_ptr<std::uint16_t[]> allocate_on_gpu(std::size_t count) {
  void* memory = nullptr;
  if (cudaMallocManaged(&memory, count * sizeof(std::uint16_t)) != cudaSuccess)
    throw std::bad_alloc();
  return {static_cast<std::uint16_t*>(memory), [](std::uint16_t* owned) { cudaFree(owned); }};
}

/// The runtime only enqueues; results are read after this.
inline void wait_for_gpu() { cudaDeviceSynchronize(); }

#else
inline bool has_gpu() { return false; }
inline std::shared_ptr<std::uint16_t[]> allocate_on_gpu(std::size_t) { return nullptr; }
inline void wait_for_gpu() {}
#endif

inline tilewright::Runtime make_runtime() {
  return has_gpu() ? tilewright::Runtime() : tilewright::Runtime(tilewright::make_emulator());
}

inline std::shared_ptr<std::uint16_t[]> allocate(std::size_t count) {
  return has_gpu() ? allocate_on_gpu(count) : std::shared_ptr<std::uint16_t[]>(new std::uint16_t[count]);
}
