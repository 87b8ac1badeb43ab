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

/// The value in the lower, and in the upper half of a register.
template <class Element> TILEWRIGHT_DEVICE float unpack_low(uint32_t packed);
template <class Element> TILEWRIGHT_DEVICE float unpack_high(uint32_t packed);

template <> TILEWRIGHT_DEVICE float unpack_low<BFloat16>(uint32_t packed) { return __uint_as_float(packed << 16); }
template <> TILEWRIGHT_DEVICE float unpack_high<BFloat16>(uint32_t packed) {
  return __uint_as_float(packed & 0xffff0000u);
}

template <> TILEWRIGHT_DEVICE float unpack_low<Float16>(uint32_t packed) {
  float value;
  asm("cvt.f32.f16 %0, %1;" : "=f"(value) : "h"(static_cast<uint16_t>(packed)));
  return value;
}
template <> TILEWRIGHT_DEVICE float unpack_high<Float16>(uint32_t packed) { return unpack_low<Float16>(packed >> 16); }

} // namespace tilewright
