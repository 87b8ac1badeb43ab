// Matrix products of one warp: device/matrix.cuh on the CPU. The last lane to come computes for all, on the fragment
// layouts of the PTX ISA ("Matrix Fragments for mma.m16n8k16 with floating point type", "ldmatrix").
#pragma once

#include <cstring>

#include "device/element.cuh"
#include "emulator/vectors.cuh"

namespace tilewright {

namespace emulator {

constexpr int matrix_rows = 8; // of the matrices that ldmatrix loads

/// Row r of matrix m has the address of lane 8 m + r; its word w is register m of lane 4 r + w.
inline void load_matrices_of_warp(WarpExchange& exchange, Place place) {
  for (int lane = 0; lane < warp_lanes; ++lane) {
    const auto readers = [lane](int word) { return 1u << (lane % matrix_rows * 4 + word); };
    std::memcpy(&exchange.matrix[lane / matrix_rows][lane % matrix_rows * 4],
                matrix_row_at(exchange, lane, Access::read, readers, place), matrix_row_bytes);
  }
}

/// Lane 4 c + p gets rows 2 p and 2 p + 1 of column c.
inline void load_matrices_transposed_of_warp(WarpExchange& exchange, Place place) {
  for (int matrix = 0; matrix < 4; ++matrix) {
    uint16_t rows[matrix_rows][matrix_rows];
    for (int row = 0; row < matrix_rows; ++row) {
      const auto readers = [row](int word) { return 0x11u << (8 * word + row / 2); };
      std::memcpy(rows[row], matrix_row_at(exchange, matrix * matrix_rows + row, Access::read, readers, place),
                  matrix_row_bytes);
    }
    for (int lane = 0; lane < warp_lanes; ++lane) {
      const int column = lane / 4, pair = lane % 4;
      exchange.matrix[matrix][lane] = rows[2 * pair][column] | static_cast<uint32_t>(rows[2 * pair + 1][column]) << 16;
    }
  }
}

inline void meet_to_load(uint32_t (&fragment)[4], SharedAddress row, WarpOperation operation, WarpWork work,
                         Place place) {
  Thread& thread = this_thread();
  WarpExchange& exchange = *thread.exchange;
  const int lane = lane_of(thread);
  exchange.address[lane] = row;
  thread.services->meet_warp(thread, operation, work, place);
  for (int matrix = 0; matrix < 4; ++matrix) {
    fragment[matrix] = exchange.matrix[matrix][lane];
  }
}

/// d += a b. Products are exact in float32; they are added one after the other, in an order that hardware leaves open.
template <class Element> void multiply_add_of_warp(WarpExchange& exchange, Place) {
  // Registers 0 and 1 of a hold columns 0 .. 7 of rows 0 .. 7 and 8 .. 15, registers 2 and 3 columns 8 .. 15; those of
  // b likewise rows 0 .. 7 and 8 .. 15. A word holds two neighbours along the depth, the lower one in its low half.
  float a[4][2][warp_lanes];
  for (int reg = 0; reg < 4; ++reg) {
    for (int lane = 0; lane < warp_lanes; lane += 8) {
      const auto words = load_vector<Words8>(&exchange.a[reg][lane]);
      const Floats8 low = widen<Element>(words), high = widen<Element>(words >> 16);
      std::memcpy(&a[reg][0][lane], &low, sizeof low);
      std::memcpy(&a[reg][1][lane], &high, sizeof high);
    }
  }
  Floats8 b[2][4][2];
  for (int reg = 0; reg < 2; ++reg) {
    for (int pair = 0; pair < 4; ++pair) {
      const auto words = load_vector<Words8>(&exchange.b[reg][8 * pair]);
      b[reg][pair][0] = widen<Element>(words);
      b[reg][pair][1] = widen<Element>(words >> 16);
    }
  }
  for (int half = 0; half < 2; ++half) {
    for (int row = 0; row < 8; ++row) {
      auto sum = load_vector<Floats8>(&exchange.d[half][8 * row]);
      for (int depth = 0; depth < 2; ++depth) {
        for (int pair = 0; pair < 4; ++pair) {
          const int reg = 2 * depth + half, lane = 4 * row + pair;
          sum += a[reg][0][lane] * b[depth][pair][0];
          sum += a[reg][1][lane] * b[depth][pair][1];
        }
      }
      std::memcpy(&exchange.d[half][8 * row], &sum, sizeof sum);
    }
  }
}

} // namespace emulator

TILEWRIGHT_DEVICE void load_matrices(uint32_t (&fragment)[4], SharedAddress row,
                                     emulator::Place place = emulator::here()) {
  emulator::meet_to_load(fragment, row, emulator::WarpOperation::load_matrices, emulator::load_matrices_of_warp, place);
}

TILEWRIGHT_DEVICE void load_matrices_transposed(uint32_t (&fragment)[4], SharedAddress row,
                                                emulator::Place place = emulator::here()) {
  emulator::meet_to_load(fragment, row, emulator::WarpOperation::load_matrices_transposed,
                         emulator::load_matrices_transposed_of_warp, place);
}

template <class Element>
TILEWRIGHT_DEVICE void multiply_add(float (&d)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1,
                                    emulator::Place place = emulator::here()) {
  emulator::Thread& thread = emulator::this_thread();
  emulator::WarpExchange& exchange = *thread.exchange;
  const int lane = emulator::lane_of(thread);
  for (int reg = 0; reg < 4; ++reg) {
    exchange.a[reg][lane] = a[reg];
  }
  const int transposed_lane = lane % 4 * 8 + lane / 4;
  exchange.b[0][transposed_lane] = b0;
  exchange.b[1][transposed_lane] = b1;
  std::memcpy(&exchange.d[0][2 * lane], &d[0], 2 * sizeof(float));
  std::memcpy(&exchange.d[1][2 * lane], &d[2], 2 * sizeof(float));
  thread.services->meet_warp(thread, emulator::WarpOperation::multiply_add, emulator::multiply_add_of_warp<Element>,
                             place);
  std::memcpy(&d[0], &exchange.d[0][2 * lane], 2 * sizeof(float));
  std::memcpy(&d[2], &exchange.d[1][2 * lane], 2 * sizeof(float));
}

} // namespace tilewright
