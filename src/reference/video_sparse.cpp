#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>

#include <fmt/format.h>

#include "problem/relation.hpp"
#include "reference/convert.hpp"
#include "reference/parallel.hpp"
#include "reference/relation.hpp"
#include "reference/tensor.hpp"
#include "reference/tiles.hpp"
#include <tilewright/error.hpp>
#include <tilewright/reference.hpp>

namespace tilewright::reference {
namespace {

constexpr double minus_infinity = -std::numeric_limits<double>::infinity();

/// One tensor of means, dense and in 16 bits: one row in float64.
class Means {
public:
  explicit Means(const TensorView& view)
      : view_(view), heads_(view.extents[1]), tiles_(view.extents[2]), head_dim_(view.extents[3]) {}
  [[nodiscard]] double at(std::int64_t batch, std::int64_t head, std::int64_t tile, std::int64_t i) const {
    return decode(view_.dtype, static_cast<const std::uint16_t*>(
                                   view_.data)[((batch * heads_ + head) * tiles_ + tile) * head_dim_ + i]);
  }

private:
  TensorView view_;
  std::int64_t heads_, tiles_, head_dim_;
};

double scale_of(const std::optional<float>& scale, std::int64_t head_dim) {
  return scale ? double{*scale} : 1 / std::sqrt(static_cast<double>(head_dim));
}

/// Scaled scores of one query tile, and what rounding them may move, of every key tile.
struct ScoreRow {
  std::vector<double> scores, allowances;
};

ScoreRow score_row(const SelectTiles& call, std::int64_t batch, std::int64_t head, std::int64_t query) {
  const auto &q = call.query_means.extents, &k = call.key_means.extents;
  const Means queries(call.query_means), keys(call.key_means);
  const std::int64_t kv_head = head / (q[1] / k[1]);
  const double scale = scale_of(call.scale, q[3]);
  ScoreRow row;
  for (std::int64_t key = 0; key < k[2]; ++key) {
    double score = 0, magnitude = 0;
    for (std::int64_t i = 0; i < q[3]; ++i) {
      const double product = queries.at(batch, head, query, i) * keys.at(batch, kv_head, key, i);
      score += product;
      magnitude += std::abs(product);
    }
    const bool empty = call.key_sizes && valid_rows(call.key_sizes, batch, key, 1) <= 0;
    row.scores.push_back(empty ? minus_infinity : scale * score);
    row.allowances.push_back(scale * magnitude / 128); // 2^-7
  }
  return row;
}

/// Whether two key tiles have the same mean, for one query tile (a row of all of them).
bool alike(const SelectTiles& call, std::int64_t row, std::int32_t a, std::int32_t b) {
  const auto &q = call.query_means.extents, &k = call.key_means.extents;
  const Means keys(call.key_means);
  const std::int64_t batch = row / q[2] / q[1], head = row / q[2] % q[1] / (q[1] / k[1]);
  for (std::int64_t i = 0; i < q[3]; ++i)
    if (keys.at(batch, head, a, i) != keys.at(batch, head, b, i))
      return false;
  const auto is_empty = [&](std::int32_t tile) {
    return call.key_sizes && valid_rows(call.key_sizes, batch, tile, 1) <= 0;
  };
  return is_empty(a) == is_empty(b);
}

std::vector<std::int32_t> choose(const std::vector<double>& scores, std::int64_t topk) {
  std::vector<std::int32_t> tiles(scores.size());
  std::iota(tiles.begin(), tiles.end(), 0);
  std::stable_sort(tiles.begin(), tiles.end(), [&](std::int32_t a, std::int32_t b) {
    return scores[static_cast<std::size_t>(a)] > scores[static_cast<std::size_t>(b)];
  });
  tiles.resize(static_cast<std::size_t>(topk));
  std::sort(tiles.begin(), tiles.end());
  return tiles;
}

/// Dense 16-bit tensors out of means in float64, for select_tiles; the numbers are exact in the type.
std::vector<std::uint16_t> encode_all(DataType dtype, const std::vector<double>& values) {
  std::vector<std::uint16_t> bits(values.size());
  std::transform(values.begin(), values.end(), bits.begin(), [&](double value) { return encode(dtype, value); });
  return bits;
}

} // namespace

std::vector<double> pool_tiles(const PoolTiles& call) {
  const AttentionTensor tokens(call.tokens, call.layout);
  const problem::Tiling tiling(call.canvas, call.tile);
  const std::int64_t rows = tiling.token_count(call.layout);
  if (tokens.tokens != rows)
    throw Error(ErrorCode::invalid_argument, fmt::format("tokens has {} tokens", tokens.tokens),
                fmt::format("allowed: {}, as the canvas has", rows), "correct the canvas");
  const std::int64_t tiles = tiling.tile_count(), head_dim = tokens.head_dim;
  std::vector<double> means(static_cast<std::size_t>(tokens.batch * tokens.heads * tiles * head_dim), 0.0);
  std::vector<double> counts(static_cast<std::size_t>(tokens.batch * tiles), 0.0);
  for (std::int64_t batch = 0; batch < tokens.batch; ++batch) {
    for (std::int64_t token = 0; token < rows; ++token) {
      const std::optional<std::int64_t> found = tile_of(tiling, call.layout, call.sizes, batch, token);
      if (!found)
        continue;
      const std::int64_t tile = *found;
      ++counts[static_cast<std::size_t>(batch * tiles + tile)];
      for (std::int64_t head = 0; head < tokens.heads; ++head)
        for (std::int64_t i = 0; i < head_dim; ++i)
          means[static_cast<std::size_t>(((batch * tokens.heads + head) * tiles + tile) * head_dim + i)] +=
              tokens.read(batch, head, token, i);
    }
  }
  for (std::size_t i = 0; i < means.size(); ++i) {
    const auto row = static_cast<std::int64_t>(i) / head_dim;
    const std::int64_t batch = row / tiles / tokens.heads, tile = row % tiles;
    const double count = std::max(counts[static_cast<std::size_t>(batch * tiles + tile)], 1.0);
    means[i] = decode(tokens.dtype, encode(tokens.dtype, means[i] / count));
  }
  return means;
}

Selection select_tiles(const SelectTiles& call, int threads) {
  const auto &q = call.query_means.extents, &k = call.key_means.extents;
  const std::int64_t topk = call.indices.extents[3], head_dim = q[3];
  if (topk < 1 || topk > k[2])
    throw Error(ErrorCode::invalid_argument, fmt::format("topk is {}", topk),
                fmt::format("1 to {} (the key tiles) is allowed", k[2]), "correct topk");
  Selection selection;
  const auto rows = static_cast<std::size_t>(q[0] * q[1] * q[2]);
  selection.lse.resize(rows);
  selection.indices.resize(rows * static_cast<std::size_t>(topk));
  if (call.value_means)
    selection.out.assign(rows * static_cast<std::size_t>(head_dim), 0.0);
  parallel_for(rows, threads, [&](std::size_t item) {
    const auto row = static_cast<std::int64_t>(item);
    const std::int64_t batch = row / q[2] / q[1], head = row / q[2] % q[1];
    const std::vector<double> scores = score_row(call, batch, head, row % q[2]).scores;
    const std::vector<std::int32_t> chosen = choose(scores, topk);
    std::copy(chosen.begin(), chosen.end(), selection.indices.begin() + row * topk);
    const double maximum = *std::max_element(scores.begin(), scores.end());
    if (maximum == minus_infinity) {
      selection.lse[item] = minus_infinity;
      return;
    }
    double sum = 0;
    for (const double score : scores)
      sum += std::exp(score - maximum);
    selection.lse[item] = maximum + std::log(sum);
    if (!call.value_means)
      return;
    const Means values(*call.value_means);
    for (std::size_t key = 0; key < scores.size(); ++key)
      for (std::int64_t i = 0; i < head_dim; ++i)
        selection.out[item * static_cast<std::size_t>(head_dim) + static_cast<std::size_t>(i)] +=
            std::exp(scores[key] - maximum) / sum *
            values.at(batch, head / (q[1] / k[1]), static_cast<std::int64_t>(key), i);
  });
  return selection;
}

SelectionComparison compare_selection(const SelectTiles& call, const Selection& expected) {
  const auto &q = call.query_means.extents, &k = call.key_means.extents;
  const std::int64_t topk = call.indices.extents[3];
  const auto* indices = static_cast<const std::int32_t*>(call.indices.data);
  const auto* counts = static_cast<const std::int32_t*>(call.counts.data);
  SelectionComparison result;
  for (std::int64_t row = 0; row < q[0] * q[1] * q[2]; ++row, ++result.lists) {
    const std::vector<std::int32_t> list(indices + row * topk, indices + (row + 1) * topk);
    const std::vector<std::int32_t> wanted(expected.indices.begin() + row * topk,
                                           expected.indices.begin() + (row + 1) * topk);
    if (list == wanted && counts[row] == topk)
      continue;
    const bool ascending = std::adjacent_find(list.begin(), list.end(), std::greater_equal<>()) == list.end();
    if (counts[row] != topk || !ascending || list.front() < 0 || list.back() >= k[2]) {
      result.malformed = fmt::format("list {} has {} of {} tiles, or tiles that do not ascend from 0 to {}", row,
                                     counts[row], topk, k[2] - 1);
      return result;
    }
    ++result.different;
    const ScoreRow scores = score_row(call, row / q[2] / q[1], row / q[2] % q[1], row % q[2]);
    std::vector<std::int32_t> only_list, only_wanted;
    std::set_difference(list.begin(), list.end(), wanted.begin(), wanted.end(), std::back_inserter(only_list));
    std::set_difference(wanted.begin(), wanted.end(), list.begin(), list.end(), std::back_inserter(only_wanted));
    for (const std::int32_t taken : only_list)
      for (const std::int32_t left : only_wanted) {
        const auto a = static_cast<std::size_t>(taken), b = static_cast<std::size_t>(left);
        const double difference = scores.scores[b] - scores.scores[a];
        const double allowance = std::max(scores.allowances[a], scores.allowances[b]);
        // Sums in another order may tell equal scores apart, but not those of equal means: they go to the lower tile.
        const bool broken_tie = taken > left && alike(call, row, taken, left);
        if (allowance > 0 && !broken_tie)
          result.worst = std::max(result.worst, difference / allowance);
        else
          result.worst = std::numeric_limits<double>::infinity();
      }
  }
  return result;
}

void blend_into(std::vector<double>& out, const AttentionForward& call, const BlockList& pattern) {
  if (!call.coarse)
    return;
  const Relation relation(call, pattern);
  const Shape& shape = relation.shape();
  const auto* coarse = static_cast<const float*>(call.coarse->data);
  const std::int64_t tiles = call.coarse->extents[2];
  const std::optional<AttentionTensor> gate =
      call.gate ? std::optional(AttentionTensor(*call.gate, call.layout)) : std::nullopt;
  for (std::int64_t batch = 0; batch < shape.batch; ++batch)
    for (std::int64_t head = 0; head < shape.heads; ++head)
      for (std::int64_t row = 0; row < shape.queries; ++row) {
        const std::int32_t tile = relation.query_group(batch, row);
        if (tile == Relation::padding)
          continue;
        const std::int64_t sequence = batch * shape.heads + head;
        for (std::int64_t i = 0; i < shape.head_dim; ++i)
          out[static_cast<std::size_t>((sequence * shape.queries + row) * shape.head_dim + i)] +=
              (gate ? gate->read(batch, head, row, i) : 1.0) *
              double{coarse[(sequence * tiles + tile) * shape.head_dim + i]};
      }
}

VideoSparseResult video_sparse_attention(const VideoSparseAttention& call, const TensorView* counts,
                                         const TensorView* indices, int threads) {
  const Canvas key_canvas = call.key_canvas.value_or(call.canvas);
  VideoSparseResult result;
  result.pooled_query = pool_tiles({call.q, {}, call.layout, call.canvas, call.tile, call.query_sizes});
  result.pooled_key = pool_tiles({call.k, {}, call.layout, key_canvas, call.tile, call.key_sizes});
  result.pooled_value = pool_tiles({call.v, {}, call.layout, key_canvas, call.tile, call.key_sizes});

  const AttentionTensor q(call.q, call.layout), k(call.k, call.layout);
  const std::int64_t query_tiles = problem::Tiling(call.canvas, call.tile).tile_count();
  const std::int64_t key_tiles = problem::Tiling(key_canvas, call.tile).tile_count();
  auto query_bits = encode_all(q.dtype, result.pooled_query), key_bits = encode_all(q.dtype, result.pooled_key),
       value_bits = encode_all(q.dtype, result.pooled_value);
  SelectTiles select;
  select.query_means = TensorView::contiguous(query_bits.data(), q.dtype, {q.batch, q.heads, query_tiles, q.head_dim});
  select.key_means = TensorView::contiguous(key_bits.data(), q.dtype, {q.batch, k.heads, key_tiles, q.head_dim});
  select.value_means = TensorView::contiguous(value_bits.data(), q.dtype, {q.batch, k.heads, key_tiles, q.head_dim});
  select.indices = TensorView::contiguous(nullptr, DataType::int32, {q.batch, q.heads, query_tiles, call.topk});
  select.key_sizes = call.key_sizes;
  select.scale = call.scale;
  result.selection = select_tiles(select, threads);

  std::vector<std::int32_t> full(static_cast<std::size_t>(q.batch * q.heads * query_tiles),
                                 static_cast<std::int32_t>(call.topk));
  BlockList pattern{.canvas = call.canvas, .tile = call.tile};
  pattern.key_canvas = key_canvas;
  pattern.counts =
      counts ? *counts : TensorView::contiguous(full.data(), DataType::int32, {q.batch, q.heads, query_tiles});
  pattern.indices = indices ? *indices
                            : TensorView::contiguous(result.selection.indices.data(), DataType::int32,
                                                     {q.batch, q.heads, query_tiles, call.topk});
  pattern.query_sizes = call.query_sizes;
  pattern.key_sizes = call.key_sizes;
  AttentionForward fine{.q = call.q, .k = call.k, .v = call.v, .out = call.out, .layout = call.layout};
  fine.scale = call.scale;
  Result attended = attention_forward(fine, pattern, threads);
  result.fine = std::move(attended.out);
  result.lse = std::move(attended.lse);
  result.out = result.fine;
  std::vector<float> coarse(result.selection.out.begin(), result.selection.out.end());
  fine.coarse = TensorView::contiguous(coarse.data(), DataType::float32, {q.batch, q.heads, query_tiles, q.head_dim});
  fine.gate = call.gate;
  blend_into(result.out, fine, pattern);
  return result;
}

} // namespace tilewright::reference
