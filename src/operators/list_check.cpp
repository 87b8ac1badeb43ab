#include "operators/list_check.hpp"

#include <algorithm>
#include <vector>

#include <fmt/format.h>

#include "problem/relation.hpp"
#include <tilewright/error.hpp>

namespace tilewright::operators {

void check_lists(Executor& executor, const BlockList& pattern, const CallShape& shape, Stream stream) {
  const problem::Tiling queries(shape.query_canvas, pattern.tile);
  const problem::Tiling keys(shape.key_canvas, pattern.key_tile.value_or(pattern.tile));
  const std::int64_t capacity = pattern.indices.extents[3];
  const auto offset = [](const TensorView& view, std::int64_t batch, std::int64_t head, std::int64_t tile) {
    return (view.extents[0] == 1 ? 0 : batch * view.strides[0]) + (view.extents[1] == 1 ? 0 : head * view.strides[1]) +
           tile * view.strides[2];
  };
  std::vector<std::int32_t> list(static_cast<std::size_t>(capacity));
  for (std::int64_t batch = 0; batch < std::max(pattern.counts.extents[0], pattern.indices.extents[0]); ++batch) {
    for (std::int64_t head = 0; head < std::max(pattern.counts.extents[1], pattern.indices.extents[1]); ++head) {
      for (std::int64_t tile = 0; tile < queries.tile_count(); ++tile) {
        const std::string where = fmt::format("batch {}, head {}, query tile {}", batch, head, tile);
        std::int32_t count = 0;
        executor.read_back(
            &count, static_cast<const std::int32_t*>(pattern.counts.data) + offset(pattern.counts, batch, head, tile),
            sizeof(count), stream);
        if (count < 0 || count > capacity)
          throw Error(ErrorCode::invalid_argument, fmt::format("counts holds {} at {}", count, where),
                      fmt::format("0 to {}, the capacity of indices", capacity), "correct the list");
        executor.read_back(list.data(),
                           static_cast<const std::int32_t*>(pattern.indices.data) +
                               offset(pattern.indices, batch, head, tile),
                           static_cast<std::size_t>(count) * sizeof(std::int32_t), stream);
        std::int32_t previous = -1;
        for (std::size_t entry = 0; entry < static_cast<std::size_t>(count); ++entry) {
          if (list[entry] <= previous || list[entry] >= keys.tile_count())
            throw Error(ErrorCode::invalid_argument,
                        fmt::format("indices holds {} behind {} at {}, entry {}", list[entry], previous, where, entry),
                        fmt::format("ascending key tile numbers below {}", keys.tile_count()), "correct the list");
          previous = list[entry];
        }
      }
    }
  }
}

} // namespace tilewright::operators
