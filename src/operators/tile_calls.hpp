// The launches of the kernels that work on tiles as a whole. Calls are checked before; prepared kernels in.
#pragma once

#include <cstdint>
#include <vector>

#include "driver/executor.hpp"
#include "kernels/tile_parameters.cuh"
#include <tilewright/problem.hpp>
#include <tilewright/schedule.hpp>
#include <tilewright/video_sparse.hpp>

namespace tilewright::operators {

/// Their extents; 0 where a call has none.
struct SelectShape {
  std::int64_t batch = 0, heads = 0, kv_heads = 0, query_tiles = 0, key_tiles = 0, head_dim = 0, topk = 0;
  DataType dtype = DataType::bf16;
};

/// Check everything that can be known without touching memory. Throw invalid_argument or unsupported.
void check_pool(const PoolTiles& call);
SelectShape check_select(const SelectTiles& call);
void check_transpose(const TransposeLists& call);
void check_mask(const ListMask& call);

/// A pooling of several tensors with one tile, layout, type and head size.
Problem pool_problem(const PoolTiles& call);
void launch_pool(Executor& executor, const Kernel& kernel, const Spec& spec, const std::vector<PoolTiles>& calls,
                 Stream stream);

Problem select_problem(DataType dtype, std::int64_t head_dim);
/// Bytes of the strips of scores that do not fit the shared memory; 0 where they do.
std::size_t select_workspace(const DeviceDescription& device, const Spec& spec, const SelectShape& shape);
void launch_select(Executor& executor, const Kernel& kernel, const Spec& spec, const SelectTiles& call,
                   const SelectShape& shape, Stream stream);

void launch_transpose(Executor& executor, const Kernel& kernel, const Spec& spec, const TransposeLists& call,
                      Stream stream);
void launch_mask(Executor& executor, const Kernel& kernel, const Spec& spec, const ListMask& call, Stream stream);

} // namespace tilewright::operators
