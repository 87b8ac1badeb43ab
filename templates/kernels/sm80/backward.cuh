// What the backward kernels of the generic family share: rows into shared memory, the two kinds of matrix product, and
// gradients out of it. A warp owns groups of 16 rows; row r of a group belongs to lane 4 (r % 8) and the next three,
// half r / 8.
#pragma once

#include "device/copy.cuh"
#include "device/math.cuh"
#include "device/matrix.cuh"
#include "device/parking.cuh"
#include "device/shared_tile.cuh"
#include "kernels/attention_backward_parameters.cuh"

#include "config.cuh"

namespace tilewright {

using Element = config::Element;

constexpr int threads = config::warps * warp_size;
constexpr int step_rows = 32;                // rows of a stage whose scores are in registers at a time
constexpr int score_columns = step_rows / 8; // fragments of 8 columns
constexpr int gradient_columns = config::head_dim / 8;
constexpr int depth_groups = config::head_dim / 16; // 16: the matrix instruction's k
static_assert(config::stages >= 2, "one stage is loaded while another is computed on");

template <int groups> using Scores = float[groups][score_columns][4];
template <int groups> using Gradient = float[groups][gradient_columns][4];

TILEWRIGHT_DEVICE int stage_before(int stage) { return stage == 0 ? config::stages - 1 : stage - 1; }
TILEWRIGHT_DEVICE int stage_after(int stage) { return stage == config::stages - 1 ? 0 : stage + 1; }

/// One head of a tensor.
TILEWRIGHT_DEVICE const uint16_t* head_of(const void* tensor, const Strides& strides, int batch, int head) {
  return static_cast<const uint16_t*>(tensor) + batch * strides.batch + head * strides.head;
}

/// A tile's rows, from global memory into shared memory; rows that are not valid become zeros.
template <class Shared, class Valid, class Token>
TILEWRIGHT_DEVICE void load_rows(Shared tile, const uint16_t* tensor, int64_t token_stride, Valid valid, Token token) {
  constexpr int rows_per_pass = threads / Shared::chunks_per_row;
  static_assert(Shared::rows % rows_per_pass == 0, "the threads must copy whole rows");
  // Opaque: the rows' offsets, kept around the main loop, would take many registers.
  const int chunk = opaque(thread_index()) % Shared::chunks_per_row;
  const int first = opaque(thread_index() / Shared::chunks_per_row);
  const uint16_t* source = tensor + chunk * Shared::chunk_elements;
#pragma unroll 4 // more in flight would hold registers and gain nothing: the copies are asynchronous
  for (int pass = 0; pass < Shared::rows / rows_per_pass; ++pass) {
    const int row = first + pass * rows_per_pass;
    const bool exists = valid(row);
    copy_async(tile.chunk(row, chunk), source + (exists ? token(row) * token_stride : 0), exists);
  }
}

template <int rows, int columns> TILEWRIGHT_DEVICE void clear(float (&values)[rows][columns][4]) {
#pragma unroll
  for (int row = 0; row < rows; ++row) {
#pragma unroll
    for (int column = 0; column < columns; ++column) {
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        values[row][column][i] = 0.f;
      }
    }
  }
}

/// products = A B^T for the warp's rows of A, from first_a on, and step_rows rows of B, from first_b on.
template <int groups, class A, class B>
TILEWRIGHT_DEVICE void multiply_rows(Scores<groups>& products, A a, int first_a, B b, int first_b, int lane) {
  clear(products);
  lane = opaque(lane);
  const int a_row = first_a + lane % 16, a_half = lane / 16;
  const int b_row = first_b + lane % 8 + lane / 16 * 8, b_half = lane / 8 % 2;
#pragma unroll
  for (int depth = 0; depth < depth_groups; ++depth) {
    uint32_t left[groups][4];
#pragma unroll
    for (int group = 0; group < groups; ++group) {
      load_matrices(left[group], a.chunk(a_row + 16 * group, (2 * depth) ^ a_half));
    }
#pragma unroll
    for (int rows = 0; rows < step_rows / 16; ++rows) {
      uint32_t right[4];
      load_matrices(right, b.chunk(b_row + 16 * rows, (2 * depth) ^ b_half));
#pragma unroll
      for (int group = 0; group < groups; ++group) {
        multiply_add<Element>(products[group][2 * rows], left[group], right[0], right[1]);
        multiply_add<Element>(products[group][2 * rows + 1], left[group], right[2], right[3]);
      }
    }
  }
}

/// sums += W B for the warp's weights W, rounded to the element type, and step_rows rows of B, from first_b on.
template <int groups, class B>
TILEWRIGHT_DEVICE void add_weighted_rows(Gradient<groups>& sums, const Scores<groups>& weights, B b, int first_b,
                                         int lane) {
  lane = opaque(lane);
  const int b_row = first_b + lane % 16, b_half = lane / 16;
#pragma unroll
  for (int rows = 0; rows < step_rows / 16; ++rows) {
    // The accumulator's layout of two 8-column fragments is the layout of one 16-column operand.
    uint32_t left[groups][4];
#pragma unroll
    for (int group = 0; group < groups; ++group) {
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        const float* pair = &weights[group][2 * rows + i / 2][i % 2 * 2];
        left[group][i] = pack<Element>(pair[0], pair[1]);
      }
    }
#pragma unroll
    for (int depth = 0; depth < depth_groups; ++depth) {
      uint32_t right[4];
      load_matrices_transposed(right, b.chunk(b_row + 16 * rows, (2 * depth) ^ b_half));
#pragma unroll
      for (int group = 0; group < groups; ++group) {
        multiply_add<Element>(sums[group][2 * depth], left[group], right[0], right[1]);
        multiply_add<Element>(sums[group][2 * depth + 1], left[group], right[2], right[3]);
      }
    }
  }
}

/// factor * gradient into the warp's own rows of a tile that nobody else reads any more.
template <int groups, class Shared>
TILEWRIGHT_DEVICE void stage_gradient(const Gradient<groups>& gradient, float factor, Shared staging, int warp_row,
                                      int lane) {
#pragma unroll
  for (int group = 0; group < groups; ++group) {
#pragma unroll
    for (int half = 0; half < 2; ++half) {
#pragma unroll
      for (int column = 0; column < gradient_columns; ++column) {
        const float* pair = &gradient[group][column][2 * half];
        store_shared(staging.chunk(warp_row + 16 * group + 8 * half + lane / 4, column) + lane % 4 * sizeof(uint32_t),
                     pack<Element>(pair[0] * factor, pair[1] * factor));
      }
    }
  }
  synchronize_warp();
}

/// Writes the staged rows of one head, 16 bytes a lane. Block says which rows exist, and which are valid: the others
/// become zeros.
template <int groups, class Shared, class Block>
TILEWRIGHT_DEVICE void store_gradient(Shared staging, const Block& block, uint16_t* tensor, int64_t token_stride,
                                      int warp_row, int lane) {
  constexpr int rows_per_pass = warp_size / Shared::chunks_per_row;
  const int chunk = lane % Shared::chunks_per_row;
  uint16_t* destination = tensor + chunk * Shared::chunk_elements;
#pragma unroll
  for (int pass = 0; pass < 16 * groups / rows_per_pass; ++pass) {
    const int row = warp_row + pass * rows_per_pass + lane / Shared::chunks_per_row;
    if (block.exists(row)) {
      store_global(destination + block.token(row) * token_stride,
                   block.valid(row) ? load_shared(staging.chunk(row, chunk)) : Bytes16{});
    }
  }
}

TILEWRIGHT_DEVICE uint16_t* gradient_of(void* tensor, const Strides& strides, int batch, int head) {
  return static_cast<uint16_t*>(tensor) + batch * strides.batch + head * strides.head;
}

} // namespace tilewright
