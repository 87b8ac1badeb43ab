// Which key tiles each query tile chooses: VSA's rule (docs/semantics.md), on the CPU.
#pragma once

#include <cstdint>

#include "block_lists.hpp"
#include "problem/relation.hpp"
#include <tilewright/runtime.hpp>

namespace tilewright::tools {

/// For each query tile the topk key tiles with the largest score, ascending. The score is the product of the tiles'
/// mean query and mean key, each rounded to the input's type; equal scores go to the lower tile. The call's tensors are
/// in host memory; text tokens take no part. Throws invalid_argument for a topk outside 1 .. key tiles.
HostLists select_topk(const AttentionForward& call, const problem::Tiling& queries, const problem::Tiling& keys,
                      std::int64_t topk);

} // namespace tilewright::tools
