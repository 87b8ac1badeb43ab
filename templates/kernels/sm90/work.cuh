// Which query blocks are whose.
#pragma once

#include "kernels/sm90/shared_memory.cuh"
#include "kernels/sm90/work_items.cuh"

namespace tilewright {

class WorkList : public WorkItems<QueryTile, config::block_q, merged, config::consumers, config::cluster> {
public:
  using WorkItems::WorkItems;

  /// The number of a consumer's query block, as pattern_query_block counts them; -1: there is none for this consumer.
  TILEWRIGHT_DEVICE int query_block(const AttentionParameters& p, int consumer) const {
    return block(p.query_grid, p.query_blocks, consumer);
  }
};

// Patterns whose query blocks all have keys, where all rows are queries.
constexpr bool always_has_work = !lists_may_be_empty<PatternParameters> && !TileRows<QueryTile>::may_be_partial;

/// Whether a query block has keys, and queries: else consumers never hear of it. The thread blocks of a cluster must
/// agree (they load keys for each other), so there only the keys count.
TILEWRIGHT_DEVICE bool has_work(const KernelArguments& arguments, const QueryBlock& query) {
  return always_has_work ||
         ((config::cluster > 1 || query.first_row < query.valid_end) && !KeyBlocks(arguments.call, query).done());
}

} // namespace tilewright
