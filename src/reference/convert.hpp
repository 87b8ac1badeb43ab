// The 16-bit floating point types, to float64 exactly and back with one rounding (to nearest, ties to even).
#pragma once

#include <algorithm>
#include <bit>
#include <cstdint>

#include <tilewright/types.hpp>

namespace tilewright::reference {

/// A sign bit, exponent bits and mantissa bits as IEEE 754 arranges them; 16 in all.
template <int exponent_bits, int mantissa_bits> struct HalfFormat {
  static constexpr int bias = (1 << (exponent_bits - 1)) - 1;
  static constexpr int least_exponent = 1 - bias; // of a normal number
  static constexpr std::uint16_t sign = 0x8000;
  static constexpr std::uint16_t infinity = ((1 << exponent_bits) - 1) << mantissa_bits;
  static constexpr std::uint16_t quiet_nan = infinity | 1 << (mantissa_bits - 1);

  static constexpr double decode(std::uint16_t bits) noexcept {
    const std::uint64_t mantissa = bits & ((1u << mantissa_bits) - 1);
    const std::uint64_t exponent = (bits & infinity) >> mantissa_bits;
    const std::uint64_t double_sign = static_cast<std::uint64_t>(bits & sign) << 48;
    if (exponent == 0) { // zero or subnormal: the mantissa counts units of the last place
      const auto unit = std::bit_cast<double>(static_cast<std::uint64_t>(least_exponent - mantissa_bits + double_bias)
                                              << double_mantissa_bits);
      return std::bit_cast<double>(std::bit_cast<std::uint64_t>(static_cast<double>(mantissa) * unit) | double_sign);
    }
    const bool finite = (bits & infinity) != infinity;
    const std::uint64_t double_exponent = finite ? exponent + std::uint64_t{double_bias - bias} : 2 * double_bias + 1;
    return std::bit_cast<double>(double_sign | double_exponent << double_mantissa_bits |
                                 mantissa << (double_mantissa_bits - mantissa_bits));
  }

  static constexpr std::uint16_t encode(double value) noexcept {
    const auto bits = std::bit_cast<std::uint64_t>(value);
    const auto result_sign = static_cast<std::uint16_t>(bits >> 48 & sign);
    if (value != value)
      return result_sign | quiet_nan;
    const int exponent = static_cast<int>(bits >> double_mantissa_bits & 0x7ff) - double_bias;
    if (exponent > bias)
      return result_sign | infinity;
    constexpr std::uint64_t one = 1;
    const std::uint64_t significand = (bits & ((one << double_mantissa_bits) - 1)) | one << double_mantissa_bits;
    const int shift = double_mantissa_bits - mantissa_bits + std::max(0, least_exponent - exponent);
    if (shift > double_mantissa_bits + 1) // below half of the least subnormal number
      return result_sign;
    const std::uint64_t odd = significand >> shift & 1;
    const std::uint64_t rounded = (significand + (one << (shift - 1)) - 1 + odd) >> shift;
    // Exponent field times its weight, plus the significand less its hidden bit: a carry moves on to the next exponent,
    // past the largest number to infinity, and out of the subnormal numbers.
    const auto field = static_cast<std::uint64_t>(std::int64_t{std::max(exponent, least_exponent)} + bias);
    return static_cast<std::uint16_t>(result_sign | (((field - 1) << mantissa_bits) + rounded));
  }

private:
  static constexpr int double_mantissa_bits = 52, double_bias = 1023;
};

using BFloat16 = HalfFormat<8, 7>;
using Float16 = HalfFormat<5, 10>;

/// Between the bits of a bf16 or fp16 number and its value.
constexpr double decode(DataType type, std::uint16_t bits) noexcept {
  return type == DataType::bf16 ? BFloat16::decode(bits) : Float16::decode(bits);
}
constexpr std::uint16_t encode(DataType type, double value) noexcept {
  return type == DataType::bf16 ? BFloat16::encode(value) : Float16::encode(value);
}

} // namespace tilewright::reference
