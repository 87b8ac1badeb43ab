#include "block_lists.hpp"

#include <algorithm>
#include <numeric>
#include <random>

#include <fmt/format.h>

#include <tilewright/error.hpp>

namespace tilewright::tools {
namespace {

[[noreturn]] void refuse_lists(std::string problem, std::string allowed) {
  throw Error(ErrorCode::invalid_argument, std::move(problem), std::move(allowed), "correct the file of block lists");
}

const HostTensor& find(const Safetensors& file, const char* name) {
  const auto found = file.tensors.find(name);
  if (found == file.tensors.end())
    refuse_lists(fmt::format("the file of block lists has no '{}'", name),
                 "key_blocks [batch, heads, query tiles, count], or counts and indices, are allowed");
  return found->second;
}

/// The extents of a tensor of lists, its rank checked.
HostLists shape_lists(const HostTensor& indices, const char* name) {
  constexpr std::size_t rank = 4;
  if (indices.shape.size() != rank)
    refuse_lists(fmt::format("{} has the shape {}", name, shape_text(indices.shape)),
                 "[batch, heads, query tiles, capacity] is allowed");
  HostLists lists{indices.shape[0], indices.shape[1], indices.shape[2], indices.shape[3], {}, {}};
  lists.indices = to_int32(indices, name);
  return lists;
}

void check_list(std::span<const std::int32_t> list, std::int64_t key_tiles, std::string_view place) {
  for (std::size_t entry = 0; entry < list.size(); ++entry) {
    if (list[entry] < 0 || list[entry] >= key_tiles)
      refuse_lists(fmt::format("entry {} of the list of {} is {}", entry, place, list[entry]),
                   fmt::format("key tiles 0 to {} are allowed", key_tiles - 1));
    if (entry > 0 && list[entry] <= list[entry - 1])
      refuse_lists(
          fmt::format("entry {} of the list of {} is {}, after {}", entry, place, list[entry], list[entry - 1]),
          "lists are ascending, each key tile at most once");
  }
}

void check_lists(const HostLists& lists, std::int64_t key_tiles) {
  for (std::size_t row = 0; row < lists.counts.size(); ++row) {
    const auto tiles = static_cast<std::size_t>(lists.query_tiles), heads = static_cast<std::size_t>(lists.heads);
    const std::string place =
        fmt::format("batch {}, head {}, query tile {}", row / tiles / heads, row / tiles % heads, row % tiles);
    if (lists.counts[row] < 0 || lists.counts[row] > lists.capacity)
      refuse_lists(fmt::format("the count of {} is {}", place, lists.counts[row]),
                   fmt::format("0 to {} (the lists' capacity) is allowed", lists.capacity));
    check_list(
        std::span(lists.indices)
            .subspan(row * static_cast<std::size_t>(lists.capacity), static_cast<std::size_t>(lists.counts[row])),
        key_tiles, place);
  }
}

} // namespace

HostLists HostLists::empty(std::int64_t batch, std::int64_t heads, std::int64_t query_tiles, std::int64_t capacity) {
  HostLists lists{batch, heads, query_tiles, capacity, {}, {}};
  lists.counts.resize(static_cast<std::size_t>(batch * heads * query_tiles));
  lists.indices.resize(lists.counts.size() * static_cast<std::size_t>(capacity));
  return lists;
}

std::span<const std::int32_t> HostLists::list(std::int64_t b, std::int64_t head, std::int64_t query_tile) const {
  const std::int64_t row = ((batch == 1 ? 0 : b) * heads + (heads == 1 ? 0 : head)) * query_tiles + query_tile;
  const auto count = static_cast<std::size_t>(counts[static_cast<std::size_t>(row)]);
  return std::span(indices).subspan(static_cast<std::size_t>(row * capacity), count);
}

void HostLists::bind(BlockList& pattern) {
  pattern.counts = TensorView::contiguous(counts.data(), DataType::int32, {batch, heads, query_tiles});
  pattern.indices = TensorView::contiguous(indices.data(), DataType::int32, {batch, heads, query_tiles, capacity});
}

HostLists read_lists(const Safetensors& file, std::int64_t query_tiles, std::int64_t key_tiles) {
  const bool equal_lengths = file.tensors.contains("key_blocks");
  const char* const name = equal_lengths ? "key_blocks" : "indices";
  HostLists lists = shape_lists(find(file, name), name);
  if (lists.query_tiles != query_tiles)
    refuse_lists(fmt::format("{} has lists for {} query tiles", name, lists.query_tiles),
                 fmt::format("{} query tiles, as the canvas has, are allowed", query_tiles));
  // Lists without entries take no bytes: their number would be bound by nothing in the file.
  if (equal_lengths && lists.capacity == 0)
    refuse_lists(fmt::format("{} has the shape {}", name, shape_text(find(file, name).shape)),
                 "lists of at least one key tile are allowed; counts and indices can say that a list is empty");
  const auto rows = static_cast<std::size_t>(lists.batch * lists.heads * lists.query_tiles);
  lists.counts = equal_lengths ? std::vector<std::int32_t>(rows, static_cast<std::int32_t>(lists.capacity))
                               : to_int32(find(file, "counts"), "counts");
  if (lists.counts.size() != rows)
    refuse_lists(fmt::format("counts has the shape {}", shape_text(find(file, "counts").shape)),
                 "the shape of indices without its last dimension is allowed");
  check_lists(lists, key_tiles);
  return lists;
}

HostLists random_lists(std::int64_t batch, std::int64_t heads, std::int64_t query_tiles, std::int64_t key_tiles,
                       std::int64_t count, std::uint64_t seed) {
  if (count < 0 || count > key_tiles)
    throw Error(ErrorCode::invalid_argument, fmt::format("{} key tiles are asked for", count),
                fmt::format("0 to {} (all of them) are allowed", key_tiles), "correct --topk");
  HostLists lists = HostLists::empty(batch, heads, query_tiles, count);
  std::fill(lists.counts.begin(), lists.counts.end(), static_cast<std::int32_t>(count));
  std::vector<std::int32_t> all(static_cast<std::size_t>(key_tiles));
  std::iota(all.begin(), all.end(), 0);
  std::mt19937_64 random(seed);
  for (auto list = lists.indices.begin(); list != lists.indices.end(); list += count)
    std::sample(all.begin(), all.end(), list, count, random); // keeps their order
  return lists;
}

HostLists complete_lists(std::int64_t query_tiles, std::int64_t key_tiles) {
  constexpr std::uint64_t any_seed = 0;
  return random_lists(1, 1, query_tiles, key_tiles, key_tiles, any_seed);
}

} // namespace tilewright::tools
