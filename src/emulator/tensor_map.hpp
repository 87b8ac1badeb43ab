// The emulator's tensor maps, and boxes copied by them.
#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include "driver/executor.hpp"

namespace tilewright::emulator {

/// What the 128 bytes of a map hold here. The rules of cuTensorMapEncodeTiled are checked when it is made.
struct BoxMap {
  std::uint64_t magic;
  unsigned char* data;
  std::uint64_t extents[5]; // elements
  std::uint64_t strides[4]; // bytes, of dimensions 1 to 4
  std::uint16_t box[5];     // elements
  std::uint8_t rank, element_bytes;

  /// Bytes of the box in shared memory.
  [[nodiscard]] std::uint32_t box_bytes() const noexcept;
};

constexpr std::uint32_t box_row_bytes = 128; // of a box in shared memory: the swizzle's width

/// Throws driver_error, with the request and the rules, as the driver's encode does.
TensorMap encode_box_map(const TensorMapRequest& request);

/// The map at this address; nothing where encode_box_map did not make it, or the address is no multiple of 64.
std::optional<BoxMap> read_box_map(const void* map) noexcept;

/// Copies a box of a map of five dimensions, whose rows are box_row_bytes, to (from) the host's memory of a shared
/// address that is a multiple of 1024. Rows and elements outside the tensor become zeros (are not written).
void copy_box_to(unsigned char* shared, const BoxMap& map, const std::int32_t (&origin)[5]);
void copy_box_from(const unsigned char* shared, const BoxMap& map, const std::int32_t (&origin)[5]);

/// The pieces of global memory that the box covers.
struct BoxPiece {
  const unsigned char* address;
  std::uint32_t bytes;
};
std::vector<BoxPiece> pieces_of_box(const BoxMap& map, const std::int32_t (&origin)[5]);

} // namespace tilewright::emulator
