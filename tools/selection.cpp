#include "selection.hpp"

#include <algorithm>
#include <numeric>

#include <fmt/format.h>

#include "reference/convert.hpp"
#include "reference/parallel.hpp"
#include "reference/relation.hpp"
#include "reference/tensor.hpp"
#include <tilewright/error.hpp>

namespace tilewright::tools {
namespace {

/// The mean of each tile's valid tokens, rounded to the tensor's type: [tiles, head_dim] of one batch and head.
std::vector<double> pooled_means(const reference::AttentionTensor& tensor, const problem::Tiling& tiling, Layout layout,
                                 std::int64_t batch, std::int64_t head) {
  std::vector<double> means(static_cast<std::size_t>(tiling.tile_count() * tensor.head_dim), 0.0);
  for (std::int64_t token = 0; token < tiling.token_count(layout); ++token) {
    const auto coordinate = tiling.coordinate_of(token, layout);
    if (!coordinate)
      continue;
    const std::int64_t tile = tiling.tile_row_of(*coordinate, layout).tile;
    for (std::int64_t element = 0; element < tensor.head_dim; ++element)
      means[static_cast<std::size_t>(tile * tensor.head_dim + element)] += tensor.read(batch, head, token, element);
  }
  for (std::size_t i = 0; i < means.size(); ++i) {
    const auto valid = static_cast<double>(tiling.valid_tokens(static_cast<std::int64_t>(i) / tensor.head_dim));
    means[i] = reference::decode(tensor.dtype, reference::encode(tensor.dtype, means[i] / valid));
  }
  return means;
}

/// The topk largest scores' places, ascending.
std::vector<std::int32_t> choose(const std::vector<double>& scores, std::int64_t topk) {
  std::vector<std::int32_t> tiles(scores.size());
  std::iota(tiles.begin(), tiles.end(), 0);
  const auto better = [&](std::int32_t a, std::int32_t b) {
    const double score_a = scores[static_cast<std::size_t>(a)], score_b = scores[static_cast<std::size_t>(b)];
    return score_a != score_b ? score_a > score_b : a < b;
  };
  std::partial_sort(tiles.begin(), tiles.begin() + topk, tiles.end(), better);
  tiles.resize(static_cast<std::size_t>(topk));
  std::sort(tiles.begin(), tiles.end());
  return tiles;
}

void check_tokens(const char* name, std::int64_t tokens, const problem::Tiling& tiling, Layout layout) {
  if (tokens != tiling.token_count(layout))
    throw Error(ErrorCode::invalid_argument, fmt::format("{} has {} tokens", name, tokens),
                fmt::format("{} tokens, as the canvas {} has, are allowed", tiling.token_count(layout),
                            to_string(tiling.canvas())),
                "correct the canvas, or the tensor");
}

} // namespace

HostLists select_topk(const AttentionForward& call, const problem::Tiling& queries, const problem::Tiling& keys,
                      std::int64_t topk) {
  if (topk < 1 || topk > keys.tile_count())
    throw Error(ErrorCode::invalid_argument, fmt::format("topk is {}", topk),
                fmt::format("1 to {} (the key tiles) is allowed", keys.tile_count()), "correct topk");
  const reference::Shape shape = reference::shape_of(call);
  check_tokens("q", shape.queries, queries, call.layout);
  check_tokens("k", shape.keys, keys, call.layout);
  const reference::AttentionTensor q(call.q, call.layout), k(call.k, call.layout);
  const std::int64_t query_tiles = queries.tile_count(), key_tiles = keys.tile_count();
  HostLists lists = HostLists::empty(q.batch, q.heads, query_tiles, topk);
  std::fill(lists.counts.begin(), lists.counts.end(), static_cast<std::int32_t>(topk));

  const auto work = [&](std::size_t item) {
    const auto batch = static_cast<std::int64_t>(item) / q.heads, head = static_cast<std::int64_t>(item) % q.heads;
    const std::vector<double> query_means = pooled_means(q, queries, call.layout, batch, head);
    const std::vector<double> key_means = pooled_means(k, keys, call.layout, batch, head / (q.heads / k.heads));
    std::vector<double> scores(static_cast<std::size_t>(key_tiles));
    for (std::int64_t query = 0; query < query_tiles; ++query) {
      const auto query_mean = query_means.begin() + query * q.head_dim;
      for (std::int64_t key = 0; key < key_tiles; ++key)
        scores[static_cast<std::size_t>(key)] =
            std::inner_product(query_mean, query_mean + q.head_dim, key_means.begin() + key * q.head_dim, 0.0);
      const std::vector<std::int32_t> chosen = choose(scores, topk);
      const std::int64_t list = static_cast<std::int64_t>(item) * query_tiles + query;
      std::copy(chosen.begin(), chosen.end(), lists.indices.begin() + list * topk);
    }
  };
  constexpr int all_cores = 0;
  reference::parallel_for(static_cast<std::size_t>(q.batch * q.heads), all_cores, work);
  return lists;
}

} // namespace tilewright::tools
