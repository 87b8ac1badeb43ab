// Float32 arithmetic: device/math.cuh on the CPU. The approximations of a GPU are computed exactly here.
#pragma once

#include <bit>
#include <cmath>
#include <limits>

#include "device/thread.cuh"

namespace tilewright {

constexpr float natural_log_of_2 = 0.693147180559945309f;

namespace emulator {

/// .ftz: subnormal operands and results become 0 with their sign.
inline float flush(float x) { return std::fabs(x) < std::numeric_limits<float>::min() ? std::copysign(0.f, x) : x; }

} // namespace emulator

TILEWRIGHT_DEVICE float negative_infinity() { return -std::numeric_limits<float>::infinity(); }

TILEWRIGHT_DEVICE float exp2_approximate(float x) { return emulator::flush(std::exp2(x)); }

TILEWRIGHT_DEVICE float log2_approximate(float x) { return std::log2(emulator::flush(x)); }

TILEWRIGHT_DEVICE float fused_multiply_add(float a, float b, float c) {
  return emulator::flush(std::fma(emulator::flush(a), emulator::flush(b), emulator::flush(c)));
}

/// Of a number and a NaN, the number.
TILEWRIGHT_DEVICE float maximum(float a, float b) { return a >= b || b != b ? a : b; }

TILEWRIGHT_DEVICE float reciprocal(float x) { return 1.f / x; }
TILEWRIGHT_DEVICE float divide(float a, float b) { return a / b; }

TILEWRIGHT_DEVICE uint32_t bits_of(float x) { return std::bit_cast<uint32_t>(x); }
TILEWRIGHT_DEVICE float float_of(uint32_t bits) { return std::bit_cast<float>(bits); }

} // namespace tilewright
