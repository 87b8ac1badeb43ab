// The functions that emulated kernels call.
#pragma once

#include "emulator/runtime.cuh"

namespace tilewright::emulator {

/// Hands each call to the multiprocessor of the calling fiber.
extern const Services services;

} // namespace tilewright::emulator
