// Float32 arithmetic, by the instruction's name where the precision depends on it (PTX ISA, section 9.7.3).
#pragma once

#include "device/thread.cuh"

namespace tilewright {

constexpr float natural_log_of_2 = 0.693147180559945309f;

TILEWRIGHT_DEVICE float negative_infinity() { return __int_as_float(static_cast<int>(0xff800000u)); }

/// 2^x within 2 ulp; subnormal results are 0; 2^-inf is 0.
TILEWRIGHT_DEVICE float exp2_approximate(float x) {
  float y;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}

TILEWRIGHT_DEVICE float log2_approximate(float x) {
  float y;
  asm("lg2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}

TILEWRIGHT_DEVICE float fused_multiply_add(float a, float b, float c) {
  float y;
  asm("fma.rn.ftz.f32 %0, %1, %2, %3;" : "=f"(y) : "f"(a), "f"(b), "f"(c));
  return y;
}

TILEWRIGHT_DEVICE float maximum(float a, float b) {
  float y;
  asm("max.f32 %0, %1, %2;" : "=f"(y) : "f"(a), "f"(b));
  return y;
}

TILEWRIGHT_DEVICE float reciprocal(float x) { return __frcp_rn(x); }
TILEWRIGHT_DEVICE float divide(float a, float b) { return __fdiv_rn(a, b); }

/// A float32's 32 bits, and back.
TILEWRIGHT_DEVICE uint32_t bits_of(float x) { return __float_as_uint(x); }
TILEWRIGHT_DEVICE float float_of(uint32_t bits) { return __uint_as_float(bits); }

} // namespace tilewright
