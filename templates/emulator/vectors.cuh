// Eight values at a time, by the vector extension of g++ and clang.
#pragma once

#include <bit>
#include <cstring>

#include "device/element.cuh"

namespace tilewright::emulator {

using Words8 = uint32_t __attribute__((vector_size(32)));
using Floats8 = float __attribute__((vector_size(32)));

template <class Vector> inline Vector load_vector(const void* source) {
  Vector vector;
  std::memcpy(&vector, source, sizeof vector);
  return vector;
}

/// The float32 values of the elements in the low halves of eight words.
template <class Element> inline Floats8 widen(const Words8& words);

template <> inline Floats8 widen<BFloat16>(const Words8& words) { return std::bit_cast<Floats8>(words << 16); }

/// Moves exponent and mantissa to their places and corrects the exponent's bias by a product, which also normalises
/// subnormals.
template <> inline Floats8 widen<Float16>(const Words8& words) {
  constexpr float bias_correction = 0x1p112f; // 2^(127 - 15)
  const Words8 magnitude = words & 0x7fffu;
  const auto value = std::bit_cast<Words8>(std::bit_cast<Floats8>(magnitude << 13) * bias_correction);
  const auto not_finite = std::bit_cast<Words8>(magnitude >= 0x7c00u) & 0x7f800000u;
  return std::bit_cast<Floats8>(value | not_finite | (words & 0x8000u) << 16);
}

} // namespace tilewright::emulator
