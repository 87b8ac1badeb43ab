#include "emulator/tensor_map.hpp"

#include <algorithm>
#include <cstring>
#include <span>

#include <fmt/format.h>
#include <fmt/ranges.h>

#include "emulator/shared_matrix.cuh"
#include <tilewright/error.hpp>

namespace tilewright::emulator {
namespace {

constexpr std::uint64_t magic = 0x70616d206e777774; // "ttwn map"
constexpr std::uintptr_t map_alignment = 64;
static_assert(sizeof(BoxMap) <= sizeof(TensorMap));

// CUDA driver API, cuTensorMapEncodeTiled, with 128-byte swizzle and without interleave.
constexpr std::uint64_t global_alignment = 16, most_stride = std::uint64_t{1} << 40,
                        most_extent = std::uint64_t{1} << 32;
constexpr std::uint32_t most_box = 256;

/// Of a box's row: which of its bytes are inside the tensor, and where the first of them is in global memory.
struct RowPart {
  std::uint32_t begin, end;
  unsigned char* global;
};

RowPart part_of_row(const BoxMap& map, const std::int32_t (&origin)[5], std::uint32_t row) {
  std::int64_t offset = 0;
  for (int dimension = 1; dimension < 5; ++dimension) {
    const std::int64_t coordinate = std::int64_t{origin[dimension]} + row % map.box[dimension];
    row /= map.box[dimension];
    if (coordinate < 0 || static_cast<std::uint64_t>(coordinate) >= map.extents[dimension])
      return {0, 0, nullptr};
    offset += coordinate * static_cast<std::int64_t>(map.strides[dimension - 1]);
  }
  const std::int64_t left = static_cast<std::int64_t>(map.extents[0]) - origin[0];
  const std::int64_t begin = std::clamp<std::int64_t>(-std::int64_t{origin[0]}, 0, map.box[0]);
  const std::int64_t end = std::clamp<std::int64_t>(left, begin, map.box[0]);
  return {static_cast<std::uint32_t>(begin) * map.element_bytes, static_cast<std::uint32_t>(end) * map.element_bytes,
          map.data + offset + (origin[0] + begin) * map.element_bytes};
}

/// Calls move(row's 16-byte chunk in shared memory, the same in an unswizzled row) for each chunk.
template <class Pointer, class Move> void for_each_chunk(Pointer shared, std::uint32_t row, Move move) {
  for (std::uint32_t chunk = 0; chunk < box_row_bytes; chunk += chunk_bytes)
    move(shared + swizzled(row * box_row_bytes + chunk), chunk);
}

std::uint32_t rows_of(const BoxMap& map) { return map.box_bytes() / box_row_bytes; }

} // namespace

std::uint32_t BoxMap::box_bytes() const noexcept {
  std::uint32_t elements = 1;
  for (const std::uint32_t extent : box)
    elements *= extent;
  return elements * element_bytes;
}

TensorMap encode_box_map(const TensorMapRequest& request) {
  const std::size_t element_bytes = size_of(request.dtype);
  bool allowed = request.rank >= 1 && request.rank <= 5 && request.dtype != DataType::boolean &&
                 request.data != nullptr && reinterpret_cast<std::uintptr_t>(request.data) % global_alignment == 0 &&
                 request.box[0] * element_bytes <= box_row_bytes;
  for (std::uint32_t dimension = 0; allowed && dimension < request.rank; ++dimension) {
    const std::uint64_t stride = request.strides_bytes[dimension];
    allowed = request.extents[dimension] >= 1 && request.extents[dimension] <= most_extent &&
              request.box[dimension] >= 1 && request.box[dimension] <= most_box &&
              (dimension == 0 || (stride % global_alignment == 0 && stride < most_stride));
  }
  if (!allowed)
    throw Error(ErrorCode::driver_error,
                fmt::format("a tensor map of {} at {}, extents {}, strides in bytes {}, box {} was asked for",
                            to_string(request.dtype), fmt::ptr(request.data),
                            fmt::join(request.extents, request.extents + std::min(request.rank, 5U), " x "),
                            fmt::join(request.strides_bytes, request.strides_bytes + std::min(request.rank, 5U), " x "),
                            fmt::join(request.box, request.box + std::min(request.rank, 5U), " x ")),
                "1 to 5 dimensions, an address and strides that are multiples of 16 bytes, extents from 1 to 2^32, "
                "strides below 2^40, boxes from 1 to 256 with at most 128 bytes in the innermost dimension are allowed",
                "make the tensor contiguous, or a view with such strides");
  BoxMap map{};
  map.magic = magic;
  map.data = static_cast<unsigned char*>(request.data);
  map.rank = static_cast<std::uint8_t>(request.rank);
  map.element_bytes = static_cast<std::uint8_t>(element_bytes);
  for (std::uint32_t dimension = 0; dimension < 5; ++dimension) {
    const bool used = dimension < request.rank;
    map.extents[dimension] = used ? request.extents[dimension] : 1;
    map.box[dimension] = used ? static_cast<std::uint16_t>(request.box[dimension]) : std::uint16_t{1};
    if (dimension > 0)
      map.strides[dimension - 1] = used ? request.strides_bytes[dimension] : 0;
  }
  TensorMap words;
  std::memcpy(words.words, &map, sizeof map);
  return words;
}

std::optional<BoxMap> read_box_map(const void* address) noexcept {
  if (reinterpret_cast<std::uintptr_t>(address) % map_alignment != 0)
    return std::nullopt;
  BoxMap map;
  std::memcpy(&map, address, sizeof map);
  return map.magic == magic ? std::optional(map) : std::nullopt;
}

void copy_box_to(unsigned char* shared, const BoxMap& map, const std::int32_t (&origin)[5]) {
  for (std::uint32_t row = 0; row < rows_of(map); ++row) {
    const RowPart part = part_of_row(map, origin, row);
    unsigned char values[box_row_bytes] = {};
    if (part.begin < part.end)
      std::memcpy(values + part.begin, part.global, part.end - part.begin);
    for_each_chunk(shared, row,
                   [&](unsigned char* place, std::uint32_t chunk) { std::memcpy(place, values + chunk, chunk_bytes); });
  }
}

void copy_box_from(const unsigned char* shared, const BoxMap& map, const std::int32_t (&origin)[5]) {
  for (std::uint32_t row = 0; row < rows_of(map); ++row) {
    const RowPart part = part_of_row(map, origin, row);
    unsigned char values[box_row_bytes];
    for_each_chunk(shared, row, [&](const unsigned char* place, std::uint32_t chunk) {
      std::memcpy(values + chunk, place, chunk_bytes);
    });
    if (part.begin < part.end)
      std::memcpy(part.global, values + part.begin, part.end - part.begin);
  }
}

std::vector<BoxPiece> pieces_of_box(const BoxMap& map, const std::int32_t (&origin)[5]) {
  std::vector<BoxPiece> pieces;
  for (std::uint32_t row = 0; row < rows_of(map); ++row)
    if (const RowPart part = part_of_row(map, origin, row); part.begin < part.end)
      pieces.push_back({part.global, part.end - part.begin});
  return pieces;
}

} // namespace tilewright::emulator
