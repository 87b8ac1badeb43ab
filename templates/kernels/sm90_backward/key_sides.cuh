// attention_backward_key: a consumer owns 64 keys (k, v) and walks through the queries (q, dout) that see them.
#pragma once

#include "inverse_pattern.cuh"

#include "kernels/mapped_backward_parameters.cuh"

namespace tilewright {

using KernelArguments = MappedBackwardArguments<PatternParameters>;
using OwnTile = KeyTile;
using WalkedTile = QueryTile;
using OwnBlock = KeyBlock;
using Walk = QueryBlocks;
constexpr int block_owned = config::block_k;
constexpr int block_walked = config::block_q;
constexpr int gradients = 2;
constexpr bool walked_statistics = true; // the queries' exponents and deltas come with them

TILEWRIGHT_DEVICE OwnBlock own_block(const KernelArguments& arguments, int index) {
  return pattern_key_block(arguments.backward, index);
}
TILEWRIGHT_DEVICE Walk walk_of(const KernelArguments& arguments, const OwnBlock& own) {
  return Walk(arguments.backward, own);
}
TILEWRIGHT_DEVICE int own_head(const OwnBlock& own) { return own.head; }
TILEWRIGHT_DEVICE int walked_head(const KernelArguments&, const OwnBlock&, const Walk& walk) { return walk.head(); }
TILEWRIGHT_DEVICE int walked_statistics_row(const Walk& walk) { return walk.statistics_row(); }

TILEWRIGHT_DEVICE int own_blocks(const KernelArguments& arguments) { return arguments.backward.backward.key_blocks; }
TILEWRIGHT_DEVICE const TokenGrid& own_grid(const KernelArguments& arguments) {
  return arguments.backward.call.attention.key_grid;
}
TILEWRIGHT_DEVICE const TokenGrid& walked_grid(const KernelArguments& arguments) {
  return arguments.backward.call.attention.query_grid;
}
TILEWRIGHT_DEVICE int own_heads(const KernelArguments& arguments) {
  const AttentionParameters& p = arguments.backward.call.attention;
  return p.heads / p.heads_per_kv_head;
}
TILEWRIGHT_DEVICE const float* gradient_shares(const KernelArguments& arguments, int which) {
  const TileShares& shares = arguments.backward.backward.shares;
  return which == 0 ? shares.key : shares.value;
}
TILEWRIGHT_DEVICE void* gradient_tensor(const KernelArguments& arguments, int which) {
  const BackwardParameters& p = arguments.backward.backward;
  return which == 0 ? p.key_gradient : p.value_gradient;
}
TILEWRIGHT_DEVICE const Strides& gradient_strides(const KernelArguments& arguments, int which) {
  const BackwardParameters& p = arguments.backward.backward;
  return which == 0 ? p.key_gradient_strides : p.value_gradient_strides;
}

} // namespace tilewright
