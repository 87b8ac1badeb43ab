// attention_backward_query: a consumer owns 64 queries (q, dout) and walks through the keys (k, v) that they see.
#pragma once

#include "pattern.cuh"

#include "kernels/mapped_backward_parameters.cuh"
#include "patterns/statistics_rows.cuh"

namespace tilewright {

using KernelArguments = MappedBackwardArguments<PatternParameters>;
using OwnTile = QueryTile;
using WalkedTile = KeyTile;
using OwnBlock = QueryBlock;
using Walk = KeyBlocks;
constexpr int block_owned = config::block_q;
constexpr int block_walked = config::block_k;
constexpr int gradients = 1;
constexpr bool walked_statistics = false; // consumers read those of their own rows themselves

TILEWRIGHT_DEVICE OwnBlock own_block(const KernelArguments& arguments, int index) {
  return pattern_query_block(arguments.backward.call, index);
}
TILEWRIGHT_DEVICE Walk walk_of(const KernelArguments& arguments, const OwnBlock& own) {
  return Walk(arguments.backward.call, own);
}
TILEWRIGHT_DEVICE int own_head(const OwnBlock& own) { return own.head; }
TILEWRIGHT_DEVICE int walked_head(const KernelArguments& arguments, const OwnBlock& own, const Walk&) {
  return own.head / arguments.backward.call.attention.heads_per_kv_head;
}
TILEWRIGHT_DEVICE int walked_statistics_row(const Walk&) { return 0; }

TILEWRIGHT_DEVICE int own_blocks(const KernelArguments& arguments) {
  return arguments.backward.call.attention.query_blocks;
}
TILEWRIGHT_DEVICE const TokenGrid& own_grid(const KernelArguments& arguments) {
  return arguments.backward.call.attention.query_grid;
}
TILEWRIGHT_DEVICE const TokenGrid& walked_grid(const KernelArguments& arguments) {
  return arguments.backward.call.attention.key_grid;
}
TILEWRIGHT_DEVICE int own_heads(const KernelArguments& arguments) { return arguments.backward.call.attention.heads; }
TILEWRIGHT_DEVICE const float* gradient_shares(const KernelArguments& arguments, int) {
  return arguments.backward.backward.shares.query;
}
TILEWRIGHT_DEVICE void* gradient_tensor(const KernelArguments& arguments, int) {
  return arguments.backward.backward.query_gradient;
}
TILEWRIGHT_DEVICE const Strides& gradient_strides(const KernelArguments& arguments, int) {
  return arguments.backward.backward.query_gradient_strides;
}

} // namespace tilewright
