// Pictures of who attends to whom.
#pragma once

#include "block_map.hpp"
#include "picture.hpp"

namespace tilewright::tools {

/// The matrix of one head: a row a query tile, a column a key tile. '#': attends.
Picture draw_matrix(const BlockMap& map, std::int64_t batch, std::int64_t head);

/// The key canvas, one slice in t after the other from left to right, as one query tile sees it. '#': attended to;
/// 'Q': the query tile itself.
Picture draw_canvas(const BlockMap& map, std::int64_t batch, std::int64_t head, std::int64_t query_tile);

/// How the cells of both pictures look.
const Style& mask_style();

} // namespace tilewright::tools
