// The copy engine's description of a tensor. Compiled by the host and by the device.
#pragma once

#include "device/integers.cuh"

namespace tilewright {

/// The opaque 128 bytes that the executor's encode() makes and that a kernel takes within its one argument.
struct alignas(64) TensorMap {
  uint64_t words[16] = {};
};

} // namespace tilewright
