#include "reference/relation.hpp"

#include <algorithm>
#include <optional>
#include <string_view>

#include <fmt/format.h>

#include "problem/relation.hpp"
#include "reference/tensor.hpp"
#include <tilewright/error.hpp>

namespace tilewright::reference {
namespace {

using problem::Tiling;

/// The refusal of an argument's value.
[[noreturn]] void refuse(std::string_view name, const std::string& value, const std::string& allowed) {
  throw Error(ErrorCode::invalid_argument, fmt::format("{} is {}", name, value), fmt::format("allowed: {}", allowed),
              fmt::format("correct {}", name));
}

void require_equal(std::string_view name, std::int64_t value, std::int64_t expected, std::string_view reason) {
  if (value != expected)
    refuse(name, fmt::to_string(value), fmt::format("{}, {}", expected, reason));
}

void require_attention_tensor(std::string_view name, const TensorView& view) {
  if (view.rank != 4)
    refuse(fmt::format("{}'s rank", name), fmt::to_string(view.rank), "4");
  if (view.dtype != DataType::bf16 && view.dtype != DataType::fp16)
    refuse(fmt::format("{}'s dtype", name), std::string(to_string(view.dtype)), "bf16, fp16");
  for (std::size_t axis = 0; axis < 4; ++axis)
    if (view.extents[axis] < 0)
      refuse(fmt::format("{}'s extent {}", name, axis), fmt::to_string(view.extents[axis]), "0 and above");
}

/// An int32 view of the given extents; an extent of 1 stands for any where it may be shared.
void require_integers(std::string_view name, const TensorView& view, std::initializer_list<std::int64_t> extents,
                      int leading_shared) {
  if (!view.data)
    refuse(fmt::format("{}'s pointer", name), "null", "host memory");
  if (view.dtype != DataType::int32)
    refuse(fmt::format("{}'s dtype", name), std::string(to_string(view.dtype)), "int32");
  require_equal(fmt::format("{}'s rank", name), view.rank, static_cast<std::int64_t>(extents.size()), "see BlockList");
  std::size_t axis = 0;
  for (const std::int64_t extent : extents) {
    const bool shared = static_cast<int>(axis) < leading_shared && view.extents[axis] == 1;
    if (!shared)
      require_equal(fmt::format("{}'s extent {}", name, axis), view.extents[axis], extent,
                    "as the call's tensors have");
    ++axis;
  }
}

const std::int32_t* element(const TensorView& view, std::initializer_list<std::int64_t> indices) noexcept {
  const auto* address = static_cast<const std::int32_t*>(view.data);
  std::size_t axis = 0;
  for (const std::int64_t index : indices) {
    address += view.extents[axis] == 1 ? 0 : index * view.strides[axis];
    ++axis;
  }
  return address;
}

/// The group of each row of a tiled canvas: its tile's number, or padding.
std::vector<std::int32_t> canvas_groups(const Tiling& tiling, Layout layout) {
  std::vector<std::int32_t> groups(static_cast<std::size_t>(tiling.token_count(layout)), Relation::padding);
  for (std::size_t row = 0; row < groups.size(); ++row)
    if (const auto coordinate = tiling.coordinate_of(static_cast<std::int64_t>(row), layout))
      groups[row] = static_cast<std::int32_t>(tiling.tile_row_of(*coordinate, layout).tile);
  return groups;
}

/// The same where an array gives each tile's valid rows, for every batch.
std::vector<std::int32_t> sized_groups(std::string_view name, const Tiling& tiling, const TensorView& sizes,
                                       std::int64_t batch) {
  if (sizes.rank == 1)
    require_integers(name, sizes, {tiling.tile_count()}, 0);
  else
    require_integers(name, sizes, {batch, tiling.tile_count()}, 1);
  std::vector<std::int32_t> groups;
  for (std::int64_t b = 0; b < batch; ++b)
    for (std::int64_t tile = 0; tile < tiling.tile_count(); ++tile) {
      const std::int64_t valid = sizes.rank == 1 ? *element(sizes, {tile}) : *element(sizes, {b, tile});
      if (valid < 0 || valid > tiling.tile().volume())
        refuse(fmt::format("{}[{}]", name, tile), fmt::to_string(valid),
               fmt::format("0 to {}", tiling.tile().volume()));
      for (std::int64_t row = 0; row < tiling.tile().volume(); ++row)
        groups.push_back(row < valid ? static_cast<std::int32_t>(tile) : Relation::padding);
    }
  return groups;
}

/// Ascending key tile numbers of one query tile.
struct List {
  const std::int32_t* first;
  std::int64_t stride;
  std::int32_t count;

  [[nodiscard]] std::int32_t at(std::int64_t i) const noexcept { return first[i * stride]; }
  [[nodiscard]] bool contains(std::int32_t tile) const noexcept {
    std::int64_t low = 0, high = count;
    while (low < high) {
      const std::int64_t middle = (low + high) / 2;
      (at(middle) < tile ? low : high) = at(middle) < tile ? middle + 1 : middle;
    }
    return low < count && at(low) == tile;
  }
};

List list_of(const BlockList& pattern, std::int64_t batch, std::int64_t head, std::int64_t tile) noexcept {
  return {element(pattern.indices, {batch, head, tile, 0}), pattern.indices.strides[3],
          *element(pattern.counts, {batch, head, tile})};
}

void validate_lists(const BlockList& pattern, std::int64_t query_tiles, std::int64_t key_tiles) {
  const std::int64_t capacity = pattern.indices.extents[3];
  const std::int64_t batches = std::max(pattern.counts.extents[0], pattern.indices.extents[0]);
  const std::int64_t heads = std::max(pattern.counts.extents[1], pattern.indices.extents[1]);
  for (std::int64_t b = 0; b < batches; ++b)
    for (std::int64_t head = 0; head < heads; ++head)
      for (std::int64_t tile = 0; tile < query_tiles; ++tile) {
        const List list = list_of(pattern, b, head, tile);
        if (list.count < 0 || list.count > capacity)
          refuse(fmt::format("counts[{}, {}, {}]", b, head, tile), fmt::to_string(list.count),
                 fmt::format("0 to {}, the indices' capacity", capacity));
        for (std::int32_t i = 0; i < list.count; ++i)
          if (list.at(i) < (i == 0 ? 0 : list.at(i - 1) + 1) || list.at(i) >= key_tiles)
            refuse(fmt::format("indices[{}, {}, {}, {}]", b, head, tile, i), fmt::to_string(list.at(i)),
                   fmt::format("ascending key tile numbers below {}", key_tiles));
      }
}

} // namespace

Shape shape_of(const AttentionForward& call) {
  require_attention_tensor("q", call.q);
  require_attention_tensor("k", call.k);
  require_attention_tensor("v", call.v);
  const AttentionTensor q(call.q, call.layout), k(call.k, call.layout), v(call.v, call.layout);
  require_equal("k's batch", k.batch, q.batch, "as q has");
  require_equal("v's batch", v.batch, q.batch, "as q has");
  require_equal("v's heads", v.heads, k.heads, "as k has");
  require_equal("v's tokens", v.tokens, k.tokens, "as k has");
  require_equal("k's head_dim", k.head_dim, q.head_dim, "as q has");
  require_equal("v's head_dim", v.head_dim, q.head_dim, "as q has");
  if (k.heads < 1 || q.heads % k.heads != 0)
    refuse("k's heads", fmt::to_string(k.heads), fmt::format("divisors of q's {} heads", q.heads));
  return {q.batch, q.heads, k.heads, q.tokens, k.tokens, q.head_dim};
}

Relation::Relation(const AttentionForward& call, const Pattern& pattern) : shape_(shape_of(call)), pattern_(pattern) {
  std::visit([&](const auto& kind) { set_up(kind, call.layout); }, pattern_);
}

void Relation::set_up(const Dense&, Layout) {
  query_groups_.assign(static_cast<std::size_t>(shape_.queries), 0);
  key_groups_.assign(static_cast<std::size_t>(shape_.keys), 0);
}

void Relation::set_up(const SlidingTile& pattern, Layout layout) {
  const Tiling tiling(pattern.canvas, pattern.tile);
  const std::int64_t video = tiling.token_count(layout), text_rows = shape_.queries - video;
  const std::int64_t text = pattern.text_length.value_or(0);
  require_equal("k's tokens", shape_.keys, shape_.queries, "as q has");
  if (text_rows < 0 || (text_rows > 0 && !pattern.text_length))
    refuse("q's tokens", fmt::to_string(shape_.queries),
           fmt::format("{} for canvas {}{}", video, to_string(pattern.canvas),
                       pattern.text_length ? ", and text rows after them" : " without text"));
  if (text < 0 || text > text_rows)
    refuse("text_length", fmt::to_string(text), fmt::format("0 to {}, the text rows of the tensors", text_rows));
  const auto windows = static_cast<std::int64_t>(pattern.windows.size());
  if (windows != 1 && windows != shape_.heads)
    refuse("the number of windows", fmt::to_string(windows), fmt::format("1 or {}, one per head", shape_.heads));
  for (const Window& window : pattern.windows)
    if (window.t < 1 || window.h < 1 || window.w < 1)
      refuse("window", to_string(window), "extents of at least 1 tile");

  query_groups_ = canvas_groups(tiling, layout);
  query_groups_.insert(query_groups_.end(), static_cast<std::size_t>(text),
                       static_cast<std::int32_t>(tiling.tile_count()));
  query_groups_.resize(static_cast<std::size_t>(shape_.queries), padding);
  key_groups_ = query_groups_;
}

void Relation::set_up(const BlockList& pattern, Layout layout) {
  const Tiling queries(pattern.canvas, pattern.tile);
  const Tiling keys(pattern.key_canvas.value_or(pattern.canvas), pattern.key_tile.value_or(pattern.tile));
  require_equal("q's tokens", shape_.queries, queries.token_count(layout), "as its canvas has");
  require_equal("k's tokens", shape_.keys, keys.token_count(layout), "as its canvas has");
  require_integers("counts", pattern.counts, {shape_.batch, shape_.heads, queries.tile_count()}, 2);
  require_integers("indices", pattern.indices,
                   {shape_.batch, shape_.heads, queries.tile_count(), pattern.indices.extents[3]}, 2);
  validate_lists(pattern, queries.tile_count(), keys.tile_count());
  if (layout == Layout::raster && (pattern.query_sizes || pattern.key_sizes))
    refuse("layout", "raster with sizes given", "tiled; in the raster layout the canvas gives the sizes");
  query_groups_ = pattern.query_sizes ? sized_groups("query_sizes", queries, *pattern.query_sizes, shape_.batch)
                                      : canvas_groups(queries, layout);
  key_groups_ = pattern.key_sizes ? sized_groups("key_sizes", keys, *pattern.key_sizes, shape_.batch)
                                  : canvas_groups(keys, layout);
}

bool Relation::attends(std::int64_t batch, std::int64_t head, std::int64_t query_row, std::int64_t key_row) const {
  const std::int32_t query = query_group(batch, query_row), key = key_group(batch, key_row);
  if (query == padding || key == padding)
    return false;
  if (const auto* pattern = std::get_if<SlidingTile>(&pattern_)) {
    const Tiling tiling(pattern->canvas, pattern->tile);
    const std::int64_t text = tiling.tile_count();
    const std::size_t window = pattern->windows.size() == 1 ? 0 : static_cast<std::size_t>(head);
    return query == text || key == text || problem::attends(tiling, pattern->windows[window], query, key);
  }
  if (const auto* pattern = std::get_if<BlockList>(&pattern_))
    return list_of(*pattern, batch, head, query).contains(key);
  return true;
}

} // namespace tilewright::reference
