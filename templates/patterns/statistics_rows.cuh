// Where the statistics of a query block's rows stand within those of its head.
#pragma once

#include "kernels/attention_backward_parameters.cuh"
#include "patterns/query_block.cuh"

namespace tilewright {

TILEWRIGHT_DEVICE int statistics_row(const QueryBlock& query, const RowStatistics& statistics) {
  return (query.text ? statistics.text_first : query.tile * QueryTile::tokens) + query.first_row;
}

} // namespace tilewright
