// A block of rows in shared memory, in the layout that TMA writes and that ldmatrix and wgmma read without bank
// conflicts.
#pragma once

#include "device/element.cuh"

namespace tilewright {

/// rows x columns elements of 16 bits, in panels of 64 columns: a panel's row has 128 bytes, eight chunks of 16,
/// and chunk c of row r stands at place c ^ (r % 8) (the 128-byte swizzle).
template <int rows_, int columns_> struct SharedTile {
  static constexpr int rows = rows_;
  static constexpr int columns = columns_;
  static constexpr int chunk_elements = 8;
  static constexpr int panel_columns = 64;
  static constexpr int row_bytes = panel_columns * element_bytes;
  static constexpr int panel_bytes = rows * row_bytes;
  static constexpr int chunks_per_row = columns / chunk_elements;
  static constexpr int bytes = rows * columns * element_bytes;
  static_assert(columns % panel_columns == 0, "a shared tile is made of whole panels of 64 columns");

  SharedAddress base; // a multiple of 1024

  /// Where the 16 bytes stand, from the base, that hold columns 8 chunk .. 8 chunk + 7 of a row.
  static TILEWRIGHT_DEVICE uint32_t offset(int row, int chunk) {
    constexpr uint32_t panel_chunks = panel_columns / chunk_elements;
    const uint32_t panel = static_cast<uint32_t>(chunk) / panel_chunks;
    const uint32_t place = static_cast<uint32_t>(chunk ^ row) % panel_chunks;
    return panel * panel_bytes + static_cast<uint32_t>(row) * row_bytes + place * 16;
  }
  TILEWRIGHT_DEVICE SharedAddress chunk(int row, int chunk) const { return base + offset(row, chunk); }

  /// offset(row + rows, chunk ^ chunks), given offset(row, chunk) with a chunk of the first panel and a row whose bits
  /// below 8 are none of `rows`'. With rows and chunks known at compile time it costs one instruction at most: the rest
  /// of the address is the load's immediate.
  static TILEWRIGHT_DEVICE uint32_t moved(uint32_t offset, int rows, int chunks) {
    constexpr int panel_chunks = panel_columns / chunk_elements;
    const int flipped = (chunks % panel_chunks) ^ (rows % panel_chunks);
    return (offset ^ static_cast<uint32_t>(flipped * 16)) +
           static_cast<uint32_t>(chunks / panel_chunks * panel_bytes + rows * row_bytes);
  }
};

} // namespace tilewright
