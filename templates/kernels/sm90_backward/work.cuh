// Which blocks of the rows that consumers own are whose.
#pragma once

#include "kernels/sm90/work_items.cuh"
#include "kernels/sm90_backward/shared_memory.cuh"

namespace tilewright {

class WorkList : public WorkItems<OwnTile, block_owned, merged, config::consumers, 1> {
public:
  TILEWRIGHT_DEVICE explicit WorkList(const KernelArguments& arguments)
      : WorkItems(arguments.work), arguments_(arguments) {}

  /// The number of a consumer's block, as own_block counts them; -1: there is none for this consumer.
  TILEWRIGHT_DEVICE int block(int consumer) const {
    return WorkItems::block(own_grid(arguments_), own_blocks(arguments_), consumer);
  }

private:
  const KernelArguments& arguments_;
};

// Patterns where no list of either side is empty, and where all rows are valid.
constexpr bool always_has_work = !lists_may_be_empty<PatternParameters> && !TileRows<OwnTile>::may_be_partial;

/// Whether a block has valid rows, and meets any: else consumers never hear of it.
TILEWRIGHT_DEVICE bool has_work(const KernelArguments& arguments, const OwnBlock& own) {
  return always_has_work || (own.first_row < own.valid_end && !walk_of(arguments, own).done());
}

} // namespace tilewright
