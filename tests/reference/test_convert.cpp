#include <doctest/doctest.h>

#include <bit>
#include <cmath>
#include <cstdint>
#include <limits>

#include "reference/convert.hpp"

using namespace tilewright;
using namespace tilewright::reference;

namespace {

constexpr double infinity = std::numeric_limits<double>::infinity();
constexpr std::uint32_t all_values = 65536;

/// bf16 is the upper half of a float.
double bf16_value(std::uint16_t bits) { return std::bit_cast<float>(std::uint32_t{bits} << 16); }

/// fp16 from its definition (IEEE 754-2008, binary16).
double fp16_value(std::uint16_t bits) {
  const int exponent = bits >> 10 & 31, mantissa = bits & 1023;
  const double sign = bits & 0x8000 ? -1 : 1;
  if (exponent == 31)
    return mantissa ? std::numeric_limits<double>::quiet_NaN() : sign * infinity;
  return sign * (exponent == 0 ? std::ldexp(mantissa, -24) : std::ldexp(1024 + mantissa, exponent - 25));
}

bool same(double a, double b) { return std::isnan(a) ? std::isnan(b) : a == b && std::signbit(a) == std::signbit(b); }

} // namespace

TEST_CASE("every 16-bit pattern has its value, and the value has the pattern") {
  for (const DataType type : {DataType::bf16, DataType::fp16}) {
    std::uint32_t wrong_values = 0, wrong_patterns = 0;
    for (std::uint32_t i = 0; i < all_values; ++i) {
      const auto bits = static_cast<std::uint16_t>(i);
      const double expected = type == DataType::bf16 ? bf16_value(bits) : fp16_value(bits);
      wrong_values += same(decode(type, bits), expected) ? 0 : 1;
      wrong_patterns +=
          (std::isnan(expected) ? std::isnan(decode(type, encode(type, expected))) : encode(type, expected) == bits)
              ? 0
              : 1;
    }
    CAPTURE(to_string(type));
    CHECK(wrong_values == 0);
    CHECK(wrong_patterns == 0);
  }
}

TEST_CASE("between two neighbours the nearer wins, and in the middle the even one") {
  for (const DataType type : {DataType::bf16, DataType::fp16}) {
    const std::uint16_t infinite = type == DataType::bf16 ? BFloat16::infinity : Float16::infinity;
    std::uint32_t wrong = 0;
    for (std::uint16_t bits = 0; bits < infinite; ++bits)
      for (const int sign : {0x0000, 0x8000}) {
        const auto low = static_cast<std::uint16_t>(bits | sign), high = static_cast<std::uint16_t>(low + 1);
        const double value = decode(type, low);
        // Infinity rounds as if it were the number that would follow the largest one.
        const double step = bits + 1 < infinite ? decode(type, high) - value
                                                : value - decode(type, static_cast<std::uint16_t>(low - 1));
        const double middle = value + step / 2;
        wrong += encode(type, middle) == (low % 2 == 0 ? low : high) ? 0 : 1;
        wrong += encode(type, std::nextafter(middle, 0)) == low ? 0 : 1;
        wrong += encode(type, std::nextafter(middle, std::copysign(infinity, middle))) == high ? 0 : 1;
      }
    CAPTURE(to_string(type));
    CHECK(wrong == 0);
  }
}

TEST_CASE("what is out of range becomes zero or infinity") {
  CHECK(encode(DataType::bf16, 1e300) == BFloat16::infinity);
  CHECK(encode(DataType::fp16, -65520.0) == (Float16::infinity | 0x8000));
  CHECK(encode(DataType::fp16, 65519.99) == 0x7bff);
  CHECK(encode(DataType::fp16, std::ldexp(1, -25)) == 0);
  CHECK(encode(DataType::fp16, std::numeric_limits<double>::denorm_min()) == 0);
  CHECK(encode(DataType::bf16, -std::ldexp(1, -1000)) == 0x8000);
  CHECK(encode(DataType::bf16, infinity) == 0x7f80);
}
