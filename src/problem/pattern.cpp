#include <tilewright/pattern.hpp>

namespace tilewright {

BlockList BlockList::linear(std::int32_t query_length, std::int32_t key_length, std::int32_t query_block,
                            std::int32_t key_block, TensorView counts, TensorView indices) {
  BlockList list{.canvas = {1, 1, query_length}, .tile = {1, 1, query_block}, .counts = counts, .indices = indices};
  list.key_canvas = Canvas{1, 1, key_length};
  list.key_tile = Tile{1, 1, key_block};
  return list;
}

} // namespace tilewright
