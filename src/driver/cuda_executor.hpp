// The launch interface on a GPU.
#pragma once

#include <memory>

#include "cache/cache.hpp"
#include "driver/executor.hpp"
#include "support/messages.hpp"
#include <tilewright/cache.hpp>

namespace tilewright {

namespace cuda {
class CudaDevice;
}

/// An executor for one CUDA device (ordinal, or -1: the calling thread's current device, else 0), in its primary
/// context. Kernels come from the cache with these options; warnings go to on_message. Throws no_device, saying what
/// was looked for, where there is no driver or no GPU.
///
/// kernel()   a loaded kernel costs one look-up by value and no driver call. Otherwise it is compiled or read from the
///            cache, loaded at once (never lazily, so that a later graph capture can launch it) and kept for the
///            executor's lifetime: keep the executor alive as long as graphs that captured its launches.
/// launch()   enqueues on the caller's stream and returns; nothing is allocated and nothing synchronises.
std::shared_ptr<Executor> make_cuda_executor(int device, const CacheOptions& options = {},
                                             support::MessageCallback on_message = {});

/// The same on a device that is already open, with a toolchain that tests may put in place of NVRTC.
std::shared_ptr<Executor> make_cuda_executor(std::shared_ptr<const cuda::CudaDevice> device,
                                             const CacheOptions& options = {}, support::MessageCallback on_message = {},
                                             cache::Toolchain toolchain = cache::default_toolchain());

} // namespace tilewright
