// The two 16-bit element types. Their values travel as raw bits, two to a 32-bit register.
#pragma once

#include "device/thread.cuh"

namespace tilewright {

struct BFloat16 {};
struct Float16 {};

constexpr int element_bytes = 2;

/// Rounds to nearest even; low becomes the lower half, which is the earlier column of a matrix fragment.
template <class Element> TILEWRIGHT_DEVICE uint32_t pack(float low, float high);

template <> TILEWRIGHT_DEVICE uint32_t pack<BFloat16>(float low, float high) {
  uint32_t packed;
  asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(packed) : "f"(high), "f"(low));
  return packed;
}

template <> TILEWRIGHT_DEVICE uint32_t pack<Float16>(float low, float high) {
  uint32_t packed;
  asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(packed) : "f"(high), "f"(low));
  return packed;
}

} // namespace tilewright
