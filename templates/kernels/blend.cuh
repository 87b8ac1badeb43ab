// out = fine + gate * coarse: what the attention kernels do at the end of a query block where the problem asks for it.
#pragma once

#include "config.cuh"
#include "device/copy.cuh"
#include "device/element.cuh"
#include "kernels/attention_parameters.cuh"
#include "patterns/query_block.cuh"

namespace tilewright {

/// A 16-bit tensor's row, at one of its 16-byte chunks.
TILEWRIGHT_DEVICE const uint16_t* row_chunk(const void* tensor, const Strides& strides, const QueryBlock& query,
                                            int row, int chunk) {
  constexpr int chunk_elements = 8;
  return static_cast<const uint16_t*>(tensor) + query.batch * strides.batch + query.head * strides.head +
         query.token(row) * strides.token + chunk * chunk_elements;
}
TILEWRIGHT_DEVICE uint16_t* row_chunk(void* tensor, const Strides& strides, const QueryBlock& query, int row,
                                      int chunk) {
  return const_cast<uint16_t*>(row_chunk(static_cast<const void*>(tensor), strides, query, row, chunk));
}

/// The coarse result that all rows of the query's tile share.
TILEWRIGHT_DEVICE const float* coarse_row(const BlendParameters& blend, const QueryBlock& query) {
  return blend.coarse + query.batch * blend.coarse_batch_stride + query.head * blend.coarse_head_stride +
         static_cast<int64_t>(query.tile) * config::head_dim;
}

/// Brings the gate's rows first_row .. first_row + rows - 1 to where the result will stand. One warp, its own rows.
template <class Shared>
TILEWRIGHT_DEVICE void load_gate(Shared staging, const BlendParameters& blend, const QueryBlock& query,
                                 int first_staging_row, int first_row, int rows) {
  constexpr int rows_per_pass = warp_size / Shared::chunks_per_row;
  const int lane = lane_index(), chunk = lane % Shared::chunks_per_row;
#pragma unroll 4
  for (int pass = 0; pass < rows / rows_per_pass; ++pass) {
    const int offset = pass * rows_per_pass + lane / Shared::chunks_per_row;
    const bool valid = query.valid(first_row + offset);
    const void* source = valid ? row_chunk(blend.gate, blend.gate_strides, query, first_row + offset, chunk)
                               : static_cast<const uint16_t*>(blend.gate);
    copy_async(staging.chunk(first_staging_row + offset, chunk), source, valid);
  }
  commit_copies();
  wait_for_copies<0>();
  synchronize_warp();
}

/// Writes staged rows, 16 bytes a lane; rows that exist but are not valid become zeros. One warp, its own rows.
template <class Shared>
TILEWRIGHT_DEVICE void store_staged_rows(void* tensor, const Strides& strides, Shared staging, const QueryBlock& query,
                                         int first_staging_row, int first_row, int rows) {
  constexpr int rows_per_pass = warp_size / Shared::chunks_per_row;
  const int lane = lane_index(), chunk = lane % Shared::chunks_per_row;
#pragma unroll 1
  for (int pass = 0; pass < rows / rows_per_pass; ++pass) {
    const int offset = pass * rows_per_pass + lane / Shared::chunks_per_row, row = first_row + offset;
    if (query.exists(row)) {
      store_global(row_chunk(tensor, strides, query, row, chunk),
                   query.valid(row) ? load_shared(staging.chunk(first_staging_row + offset, chunk)) : Bytes16{});
    }
  }
}

/// One chunk of a row without keys: gate * coarse.
TILEWRIGHT_DEVICE Bytes16 coarse_chunk(const BlendParameters& blend, const QueryBlock& query, int row, int chunk) {
  const float* coarse = coarse_row(blend, query) + chunk * 8;
  Bytes16 gate{};
  if constexpr (config::blend_gated) {
    gate = load_constant_bytes(row_chunk(blend.gate, blend.gate_strides, query, row, chunk));
  }
  Bytes16 result;
#pragma unroll
  for (int word = 0; word < 4; ++word) {
    float low = load_constant(coarse + 2 * word), high = load_constant(coarse + 2 * word + 1);
    if constexpr (config::blend_gated) {
      low *= unpack_low<config::Element>(gate.words[word]);
      high *= unpack_high<config::Element>(gate.words[word]);
    }
    result.words[word] = pack<config::Element>(low, high);
  }
  return result;
}

/// fine + gate * coarse for two neighbouring columns, rounded. gate: their two elements.
TILEWRIGHT_DEVICE uint32_t blended(float fine_low, float fine_high, uint32_t gate, const float* coarse) {
  float low = load_constant(coarse), high = load_constant(coarse + 1);
  if constexpr (config::blend_gated) {
    low *= unpack_low<config::Element>(gate);
    high *= unpack_high<config::Element>(gate);
  }
  return pack<config::Element>(fine_low + low, fine_high + high);
}

} // namespace tilewright
