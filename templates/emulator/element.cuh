// The two 16-bit element types: device/element.cuh on the CPU.
#pragma once

#include <bit>

#include "device/thread.cuh"

namespace tilewright {

struct BFloat16 {};
struct Float16 {};

constexpr int element_bytes = 2;

namespace emulator {

// Both conversions give the hardware's one NaN, 0x7fff (PTX ISA, cvt).
constexpr uint32_t canonical_nan = 0x7fffu;

inline uint32_t round_to_bfloat16(float value) {
  const auto bits = std::bit_cast<uint32_t>(value);
  const uint32_t rounded = (bits + 0x7fffu + (bits >> 16 & 1u)) >> 16;
  return value != value ? canonical_nan : rounded;
}

/// Adding a float whose last place is worth the result's last place rounds to nearest even (a subnormal result's last
/// place is always 2^-24).
inline uint32_t round_to_float16(float value) {
  const auto bits = std::bit_cast<uint32_t>(value);
  const uint32_t sign = bits >> 16 & 0x8000u, magnitude = bits & 0x7fffffffu;
  if (magnitude > 0x7f800000u) {
    return canonical_nan;
  }
  if (magnitude >= 0x477ff000u) { // 65520: halfway between the largest half, 65504, and the next power of two
    return sign | 0x7c00u;
  }
  if (magnitude < 0x38800000u) {                                    // 2^-14
    const float subnormal = std::bit_cast<float>(magnitude) + 0.5f; // 0.5 has its last place at 2^-24
    return sign | (std::bit_cast<uint32_t>(subnormal) - std::bit_cast<uint32_t>(0.5f));
  }
  const uint32_t rebiased = magnitude - (uint32_t{127 - 15} << 23);
  return sign | ((rebiased + 0xfffu + (rebiased >> 13 & 1u)) >> 13);
}

} // namespace emulator

template <class Element> TILEWRIGHT_DEVICE uint32_t pack(float low, float high);

template <> TILEWRIGHT_DEVICE uint32_t pack<BFloat16>(float low, float high) {
  return emulator::round_to_bfloat16(low) | emulator::round_to_bfloat16(high) << 16;
}

template <> TILEWRIGHT_DEVICE uint32_t pack<Float16>(float low, float high) {
  return emulator::round_to_float16(low) | emulator::round_to_float16(high) << 16;
}

template <class Element> TILEWRIGHT_DEVICE float unpack_low(uint32_t packed);
template <class Element> TILEWRIGHT_DEVICE float unpack_high(uint32_t packed);

template <> TILEWRIGHT_DEVICE float unpack_low<BFloat16>(uint32_t packed) { return std::bit_cast<float>(packed << 16); }
template <> TILEWRIGHT_DEVICE float unpack_high<BFloat16>(uint32_t packed) {
  return std::bit_cast<float>(packed & 0xffff0000u);
}

/// Moves exponent and mantissa to their places and corrects the exponent's bias by a product, which also normalises
/// subnormals.
template <> TILEWRIGHT_DEVICE float unpack_low<Float16>(uint32_t packed) {
  const uint32_t magnitude = packed & 0x7fffu, sign = (packed & 0x8000u) << 16;
  const auto finite = std::bit_cast<uint32_t>(std::bit_cast<float>(magnitude << 13) * 0x1p112f); // 2^(127 - 15)
  return std::bit_cast<float>(sign | finite | (magnitude >= 0x7c00u ? 0x7f800000u : 0u));
}
template <> TILEWRIGHT_DEVICE float unpack_high<Float16>(uint32_t packed) { return unpack_low<Float16>(packed >> 16); }

} // namespace tilewright
