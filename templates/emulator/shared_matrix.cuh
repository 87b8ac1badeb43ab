// Where the elements of a matrix in shared memory stand, by its descriptor (PTX ISA, "Matrix Descriptor Format",
// "Canonical Layouts"), with the 128-byte swizzle: of the address's bits, 7 to 9 are added (xor) to 4 to 6.
#pragma once

#include "device/integers.cuh"

namespace tilewright::emulator {

constexpr uint32_t chunk_bytes = 16; // 8 elements
constexpr int chunk_elements = 8;

struct MatrixDescriptor {
  uint32_t start;   // bytes; an address in shared memory
  uint32_t leading; // bytes from 64 columns to the next 64, where k is in the rows
  uint32_t stride;  // bytes from 8 rows to the next 8
  bool supported;   // 128-byte swizzle, no base offset
};

constexpr MatrixDescriptor decode_descriptor(uint64_t bits) {
  const auto field = [bits](int lowest) { return static_cast<uint32_t>(bits >> lowest & 0x3fff) * 16; };
  const auto base_offset = bits >> 49 & 7, swizzle = bits >> 62;
  return {field(0), field(16), field(32), base_offset == 0 && swizzle == 1};
}

constexpr uint32_t swizzled(uint32_t address) { return address ^ (address >> 7 & 7) << 4; }

/// The address of elements k = 8 half .. 8 half + 7 of row m or n, where k is in the columns.
constexpr uint32_t chunk_k_in_columns(const MatrixDescriptor& matrix, uint32_t row, uint32_t half) {
  return swizzled(matrix.start + row / 8 * matrix.stride + row % 8 * 128 + half * chunk_bytes);
}

/// The address of elements n = 8 chunk .. 8 chunk + 7 of row k.
constexpr uint32_t chunk_k_in_rows(const MatrixDescriptor& matrix, uint32_t k, uint32_t chunk) {
  return swizzled(matrix.start + chunk / 8 * matrix.leading + k / 8 * matrix.stride + k % 8 * 128 +
                  chunk % 8 * chunk_bytes);
}

} // namespace tilewright::emulator
