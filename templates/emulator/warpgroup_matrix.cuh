// Matrix products of one warpgroup (wgmma): device/warpgroup_matrix.cuh on the CPU.
//
// Each warp issues its 16 of the 64 rows by itself; nothing makes the warps of a warpgroup wait for each other, as on
// the GPU. When a product is computed, and what becomes of the accumulators meanwhile: src/emulator/product_queue.hpp.
#pragma once

#include <cstring>

#include "device/element.cuh"
#include "emulator/shared_matrix.cuh"
#include "emulator/vectors.cuh"

namespace tilewright {

/// An operand in shared memory: what the instruction's descriptor says of it.
class SharedMatrix {
public:
  static SharedMatrix k_in_columns(SharedAddress start) { return SharedMatrix(start, 16); }
  static SharedMatrix k_in_rows(SharedAddress start, uint32_t panel_bytes) { return SharedMatrix(start, panel_bytes); }

  SharedMatrix operator+(uint32_t bytes) const {
    SharedMatrix moved = *this;
    moved.low_ += bytes / unit;
    return moved;
  }

  uint64_t descriptor() const {
    constexpr uint32_t swizzle_128_bytes = 1u << 30;
    constexpr uint32_t eight_rows = 1024 / unit;
    return static_cast<uint64_t>(swizzle_128_bytes | eight_rows) << 32 | low_;
  }

private:
  static constexpr uint32_t unit = 16; // bytes

  SharedMatrix(SharedAddress start, uint32_t leading_bytes)
      : low_((start & 0x3ffff) / unit | leading_bytes / unit << 16) {}

  uint32_t low_;
};

namespace emulator {

constexpr int product_rows = 16;  // of one warp
constexpr int product_depth = 16; // k

/// The host's memory of a chunk. The runtime has checked that all of the operand lies inside.
inline const unsigned char* chunk_at(const ProductOperands& operands, uint32_t address) {
  return operands.shared + (address - shared_base);
}

/// Eight 16-bit elements that follow each other.
template <class Element> inline Floats8 load_chunk(const unsigned char* chunk) {
  using Halves8 = uint16_t __attribute__((vector_size(16)));
  return widen<Element>(__builtin_convertvector(load_vector<Halves8>(chunk), Words8));
}

/// The warp's rows of a.
template <class Element> inline void load_a(float (&a)[product_rows][product_depth], const ProductOperands& operands) {
  if (operands.a_in_shared) {
    const MatrixDescriptor matrix = decode_descriptor(operands.a_descriptor);
    for (uint32_t row = 0; row < product_rows; ++row) {
      for (uint32_t half = 0; half < 2; ++half) {
        const uint32_t of_warpgroup = static_cast<uint32_t>(operands.warp) * product_rows + row;
        const Floats8 values = load_chunk<Element>(chunk_at(operands, chunk_k_in_columns(matrix, of_warpgroup, half)));
        std::memcpy(&a[row][8 * half], &values, sizeof values);
      }
    }
    return;
  }
  // The layout of mma.m16n8k16: see multiply_add_of_warp.
  for (int reg = 0; reg < 4; ++reg) {
    float low[warp_lanes], high[warp_lanes];
    for (int lane = 0; lane < warp_lanes; lane += 8) {
      const auto words = load_vector<Words8>(&operands.a[reg][lane]);
      const Floats8 lower = widen<Element>(words), upper = widen<Element>(words >> 16);
      std::memcpy(&low[lane], &lower, sizeof lower);
      std::memcpy(&high[lane], &upper, sizeof upper);
    }
    for (int lane = 0; lane < warp_lanes; ++lane) {
      float* const pair = &a[lane / 4 + reg % 2 * 8][lane % 4 * 2 + reg / 2 * 8];
      pair[0] = low[lane];
      pair[1] = high[lane];
    }
  }
}

/// b with its columns side by side.
template <class Element, int columns>
inline void load_b(float (&b)[product_depth][columns], const ProductOperands& operands) {
  const MatrixDescriptor matrix = decode_descriptor(operands.b_descriptor);
  if (operands.b_k_in_rows) {
    for (uint32_t k = 0; k < product_depth; ++k) {
      for (uint32_t chunk = 0; chunk < columns / chunk_elements; ++chunk) {
        const Floats8 values = load_chunk<Element>(chunk_at(operands, chunk_k_in_rows(matrix, k, chunk)));
        std::memcpy(&b[k][chunk_elements * chunk], &values, sizeof values);
      }
    }
    return;
  }
  for (uint32_t column = 0; column < columns; ++column) {
    for (uint32_t half = 0; half < 2; ++half) {
      const Floats8 values = load_chunk<Element>(chunk_at(operands, chunk_k_in_columns(matrix, column, half)));
      for (uint32_t k = 0; k < chunk_elements; ++k) {
        b[chunk_elements * half + k][column] = values[k];
      }
    }
  }
}

/// Products are exact in float32; they are added one after the other, in an order that hardware leaves open.
template <class Element, int columns> void compute_product(const ProductOperands& operands, float* sums) {
  float a[product_rows][product_depth];
  float b[product_depth][columns];
  load_a<Element>(a, operands);
  load_b<Element, columns>(b, operands);
  constexpr int tile_columns = 32; // sums that stay in registers
  for (int row = 0; row < product_rows; ++row) {
    for (int first = 0; first < columns; first += tile_columns) {
      Floats8 sum[tile_columns / 8];
      std::memcpy(sum, &sums[row * columns + first], sizeof sum);
      for (int k = 0; k < product_depth; ++k) {
        for (int i = 0; i < tile_columns / 8; ++i) {
          sum[i] += a[row][k] * load_vector<Floats8>(&b[k][first + 8 * i]);
        }
      }
      std::memcpy(&sums[row * columns + first], sum, sizeof sum);
    }
  }
}

/// What all lanes have left in the exchange, as one product.
template <class Element, int columns, bool accumulate, bool a_in_shared, bool b_k_in_rows>
void issue_product_of_warp(WarpExchange& exchange, Place place) {
  Thread& thread = this_thread();
  ProductRequest request;
  request.operands.shared = thread.shared;
  request.operands.a_in_shared = a_in_shared;
  request.operands.b_k_in_rows = b_k_in_rows;
  request.operands.a_descriptor = exchange.descriptor[0][0];
  request.operands.b_descriptor = exchange.descriptor[1][0];
  std::memcpy(request.operands.a, exchange.a, sizeof request.operands.a);
  request.operands.warp = thread.index / warp_lanes % 4;
  request.operands.columns = columns;
  request.work = compute_product<Element, columns>;
  request.accumulate = accumulate;
  std::memcpy(request.accumulator, exchange.accumulator, sizeof request.accumulator);
  thread.services->issue_product(thread, request, place);
}

} // namespace emulator

TILEWRIGHT_DEVICE void fence_products(emulator::Place place = emulator::here()) {
  emulator::Thread& thread = emulator::this_thread();
  thread.services->meet_warp(
      thread, emulator::WarpOperation::fence_products,
      [](emulator::WarpExchange&, emulator::Place) {
        emulator::Thread& last = emulator::this_thread();
        last.services->fence_products(last);
      },
      place);
}

TILEWRIGHT_DEVICE void commit_products(emulator::Place place = emulator::here()) {
  emulator::Thread& thread = emulator::this_thread();
  thread.services->meet_warp(
      thread, emulator::WarpOperation::commit_products,
      [](emulator::WarpExchange&, emulator::Place) {
        emulator::Thread& last = emulator::this_thread();
        last.services->commit_products(last);
      },
      place);
}

template <int pending> TILEWRIGHT_DEVICE void wait_for_products(emulator::Place place = emulator::here()) {
  emulator::Thread& thread = emulator::this_thread();
  thread.services->meet_warp(
      thread, emulator::WarpOperation::wait_for_products,
      [](emulator::WarpExchange&, emulator::Place at) {
        emulator::Thread& last = emulator::this_thread();
        last.services->wait_for_products(last, pending, at);
      },
      place);
}

/// On a GPU a word to the compiler: ordinary instructions use the registers up to here, or from here on. So an
/// accumulator may not be in flight.
template <int count> TILEWRIGHT_DEVICE void pin(float (&r)[count], emulator::Place place = emulator::here()) {
  emulator::Thread& thread = emulator::this_thread();
  thread.services->check_accumulator(thread, r, place);
}
template <int count> TILEWRIGHT_DEVICE void pin(uint32_t (&)[count]) {}

template <class Element> constexpr bool is_bfloat16 = false;
template <> constexpr bool is_bfloat16<BFloat16> = true;

template <class Element, bool accumulate, int count>
TILEWRIGHT_DEVICE void multiply_shared(float (&d)[count], SharedMatrix a, SharedMatrix b,
                                       emulator::Place place = emulator::here()) {
  emulator::Thread& thread = emulator::this_thread();
  emulator::WarpExchange& exchange = *thread.exchange;
  const int lane = emulator::lane_of(thread);
  exchange.accumulator[lane] = d;
  exchange.descriptor[0][lane] = a.descriptor();
  exchange.descriptor[1][lane] = b.descriptor();
  thread.services->meet_warp(thread, emulator::WarpOperation::multiply_shared,
                             emulator::issue_product_of_warp<Element, 2 * count, accumulate, true, false>, place);
}

template <class Element, bool accumulate, bool transposed = false, int count>
TILEWRIGHT_DEVICE void multiply_registers(float (&d)[count], const uint32_t* a, SharedMatrix b,
                                          emulator::Place place = emulator::here()) {
  emulator::Thread& thread = emulator::this_thread();
  emulator::WarpExchange& exchange = *thread.exchange;
  const int lane = emulator::lane_of(thread);
  exchange.accumulator[lane] = d;
  for (int reg = 0; reg < 4; ++reg) {
    exchange.a[reg][lane] = a[reg];
  }
  exchange.descriptor[0][lane] = 0;
  exchange.descriptor[1][lane] = b.descriptor();
  thread.services->meet_warp(thread, emulator::WarpOperation::multiply_registers,
                             emulator::issue_product_of_warp<Element, 2 * count, accumulate, false, !transposed>,
                             place);
}

namespace emulator {

/// load_matrices backwards.
inline void store_matrices_of_warp(WarpExchange& exchange, Place place) {
  for (int lane = 0; lane < warp_lanes; ++lane) {
    const auto writers = [lane](int word) { return 1u << (lane % 8 * 4 + word); };
    std::memcpy(matrix_row_at(exchange, lane, Access::write, writers, place), &exchange.matrix[lane / 8][lane % 8 * 4],
                matrix_row_bytes);
  }
}

} // namespace emulator

TILEWRIGHT_DEVICE void store_matrices(SharedAddress row, uint32_t m0, uint32_t m1, uint32_t m2, uint32_t m3,
                                      emulator::Place place = emulator::here()) {
  emulator::Thread& thread = emulator::this_thread();
  emulator::WarpExchange& exchange = *thread.exchange;
  const int lane = emulator::lane_of(thread);
  const uint32_t words[4] = {m0, m1, m2, m3};
  for (int matrix = 0; matrix < 4; ++matrix) {
    exchange.matrix[matrix][lane] = words[matrix];
  }
  exchange.address[lane] = row;
  thread.services->meet_warp(thread, emulator::WarpOperation::store_matrices, emulator::store_matrices_of_warp, place);
}

} // namespace tilewright
