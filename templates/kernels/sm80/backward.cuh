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
#include "kernels/tile_shares.cuh"

#include "config.cuh"

namespace tilewright {

using Element = config::Element;

constexpr int threads = config::warps * warp_size;
constexpr int gradient_columns = config::head_dim / 8; // fragments of 8 columns
constexpr int depth_groups = config::head_dim / 16;    // 16: the matrix instruction's k
constexpr int step_rows = 32;                          // of a stage whose scores are in registers at a time, but for
constexpr int score_columns = step_rows / 8;           // kernels that say otherwise
static_assert(config::stages >= 2, "one stage is loaded while another is computed on");

/// What a warp keeps in registers. It owns groups of 16 rows; a step's scores are its rows times `columns` fragments of
/// 8 rows of the other side.
template <int groups> using Operand = uint32_t[groups][depth_groups][4]; // its rows of one tensor
template <int groups, int columns = score_columns> using Scores = float[groups][columns][4];
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

/// The same for one step of a walk and two tensors, the second tile behind the first. rows: TileRows. Passes through
/// the threads are a fixed number of rows apart, so a thread finds its first row and adds what a pass adds.
template <class Shared, class Rows, class Valid>
TILEWRIGHT_DEVICE void load_step(Shared tile, const uint16_t* first_tensor, int64_t first_stride,
                                 const uint16_t* second_tensor, int64_t second_stride, const Rows& rows, int first_row,
                                 Valid valid) {
  constexpr int rows_per_pass = threads / Shared::chunks_per_row;
  constexpr int swizzle_rows = 8; // the swizzle's period; a chunk's place is 16 (chunk ^ row) bytes into its row
  if constexpr (Rows::template keeps_digits<Shared::rows> && Rows::template keeps_digits<rows_per_pass>) {
    const int chunk = opaque(thread_index()) % Shared::chunks_per_row;
    const int thread_row = opaque(thread_index() / Shared::chunks_per_row);
    const int64_t token = rows.token(first_row + thread_row);
    first_tensor += chunk * Shared::chunk_elements + token * first_stride;
    second_tensor += chunk * Shared::chunk_elements + token * second_stride;
    const SharedAddress destination = tile.chunk(thread_row, chunk);
#pragma unroll
    for (int row = 0; row < Shared::rows; row += rows_per_pass) {
      const bool exists = valid(thread_row + row);
      const int offset = exists ? rows.token_offset(row) : 0;
      const SharedAddress place =
          (destination ^ static_cast<uint32_t>(row % swizzle_rows * copy_bytes)) + row * Shared::row_bytes;
      copy_async(place, first_tensor + offset * first_stride, exists);
      copy_async(place + Shared::bytes, second_tensor + offset * second_stride, exists);
    }
  } else {
    const auto token = [&](int row) { return rows.token(first_row + row); };
    load_rows(tile, first_tensor, first_stride, valid, token);
    load_rows(Shared{tile.base + Shared::bytes}, second_tensor, second_stride, valid, token);
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

/// Where the lane's row of a tile's four 8x8 matrices stands, at the first depth: those of operand A, and of B where
/// its rows are along the depth (transposed when loaded), or of B where they are columns of the product.
template <class Shared> TILEWRIGHT_DEVICE SharedAddress depth_rows(Shared tile, int first_row, int lane) {
  return tile.chunk(first_row + lane % 16, lane / 16);
}
template <class Shared> TILEWRIGHT_DEVICE SharedAddress column_rows(Shared tile, int first_row, int lane) {
  return tile.chunk(first_row + lane % 8 + lane / 16 * 8, lane / 8 % 2);
}

/// The same 16 depth columns further on, `depth` times. The swizzle's exclusive or meets the bits of the depth alone.
template <class Shared> TILEWRIGHT_DEVICE SharedAddress at_depth(SharedAddress place, int depth) {
  constexpr int depths_per_panel = Shared::panel_columns / 16, bytes = 16 * element_bytes;
  return (place ^ static_cast<uint32_t>(depth % depths_per_panel * bytes)) +
         depth / depths_per_panel * Shared::panel_bytes;
}

/// The warp's rows, once for all steps: from shared memory they would take half of its bandwidth.
template <int groups, class Shared>
TILEWRIGHT_DEVICE void load_operand(Operand<groups>& operand, Shared tile, int warp_row, int lane) {
#pragma unroll
  for (int group = 0; group < groups; ++group) {
    const SharedAddress place = depth_rows(tile, warp_row + 16 * group, lane);
#pragma unroll
    for (int depth = 0; depth < depth_groups; ++depth) {
      load_matrices(operand[group][depth], at_depth<Shared>(place, depth));
    }
  }
}

/// products = A B^T for the warp's rows A and 8 * columns rows of B, from first_row on.
template <int groups, int columns, class Shared>
TILEWRIGHT_DEVICE void multiply_rows(float (&products)[groups][columns][4], const Operand<groups>& a, Shared b,
                                     int first_row, int lane) {
  static_assert(columns % 2 == 0, "one load brings 16 rows");
  clear(products);
  const SharedAddress place = column_rows(b, first_row, opaque(lane));
#pragma unroll
  for (int depth = 0; depth < depth_groups; ++depth) {
#pragma unroll
    for (int column = 0; column < columns; column += 2) {
      uint32_t right[4];
      load_matrices(right, at_depth<Shared>(place, depth) + column * 8 * Shared::row_bytes);
#pragma unroll
      for (int group = 0; group < groups; ++group) {
        multiply_add<Element>(products[group][column], a[group][depth], right[0], right[1]);
        multiply_add<Element>(products[group][column + 1], a[group][depth], right[2], right[3]);
      }
    }
  }
}

/// The same with the warp's rows in shared memory, for kernels that have no registers to keep them.
template <int groups, int columns, class A, class B>
TILEWRIGHT_DEVICE void multiply_rows(float (&products)[groups][columns][4], A a, int warp_row, B b, int first_row,
                                     int lane) {
  Operand<groups> operand;
  load_operand<groups>(operand, a, warp_row, opaque(lane));
  multiply_rows<groups>(products, operand, b, first_row, lane);
}

/// sums += W B for the warp's weights W, rounded to the element type, and 8 * columns rows of B, from first_row on.
template <int groups, int columns, class Shared>
TILEWRIGHT_DEVICE void add_weighted_rows(Gradient<groups>& sums, const float (&weights)[groups][columns][4], Shared b,
                                         int first_row, int lane) {
  const SharedAddress place = depth_rows(b, first_row, opaque(lane));
#pragma unroll
  for (int column = 0; column < columns; column += 2) {
    // The accumulator's layout of two 8-column fragments is the layout of one 16-column operand.
    uint32_t left[groups][4];
#pragma unroll
    for (int group = 0; group < groups; ++group) {
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        const float* pair = &weights[group][column + i / 2][i % 2 * 2];
        left[group][i] = pack<Element>(pair[0], pair[1]);
      }
    }
#pragma unroll
    for (int depth = 0; depth < depth_groups; ++depth) {
      uint32_t right[4];
      load_matrices_transposed(right, at_depth<Shared>(place, depth) + column * 8 * Shared::row_bytes);
#pragma unroll
      for (int group = 0; group < groups; ++group) {
        multiply_add<Element>(sums[group][2 * depth], left[group], right[0], right[1]);
        multiply_add<Element>(sums[group][2 * depth + 1], left[group], right[2], right[3]);
      }
    }
  }
}

/// factor * gradient, and the rows' share (tile_shares.cuh), into the warp's own rows of a tile that nobody else reads
/// any more.
template <int groups, class Shared>
TILEWRIGHT_DEVICE void stage_gradient(const Gradient<groups>& gradient, float factor, const float* share,
                                      Shared staging, int warp_row, int lane) {
#pragma unroll
  for (int column = 0; column < gradient_columns; ++column) {
    const FloatPair added = share_columns(share, column * 8 + lane % 4 * 2);
#pragma unroll
    for (int group = 0; group < groups; ++group) {
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        const float* pair = &gradient[group][column][2 * half];
        store_shared(staging.chunk(warp_row + 16 * group + 8 * half + lane / 4, column) + lane % 4 * sizeof(uint32_t),
                     pack<Element>(fused_multiply_add(pair[0], factor, added.first),
                                   fused_multiply_add(pair[1], factor, added.second)));
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
