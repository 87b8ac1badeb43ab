#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>

#include "problem/relation.hpp"
#include "reference/parallel.hpp"
#include "reference/tensor.hpp"
#include "reference/tiles.hpp"
#include <tilewright/reference.hpp>

namespace tilewright::reference {
namespace {

/// One tensor's rows by tile: where its gradients and those of its means belong.
struct TiledRows {
  TiledRows(const TensorView& view, Layout layout, const Canvas& canvas, const Tile& tile,
            const std::optional<TensorView>& sizes)
      : tensor(view, layout), tiles(problem::Tiling(canvas, tile).tile_count()),
        tile_of_row(static_cast<std::size_t>(tensor.batch * tensor.tokens), -1),
        counts(static_cast<std::size_t>(tensor.batch * tiles)) {
    const problem::Tiling tiling(canvas, tile);
    for (std::int64_t batch = 0; batch < tensor.batch; ++batch)
      for (std::int64_t row = 0; row < tensor.tokens; ++row)
        if (const auto found = tile_of(tiling, layout, sizes, batch, row)) {
          tile_of_row[static_cast<std::size_t>(batch * tensor.tokens + row)] = *found;
          ++counts[static_cast<std::size_t>(batch * tiles + *found)];
        }
  }

  [[nodiscard]] std::int64_t count(std::int64_t batch, std::int64_t tile) const {
    return counts[static_cast<std::size_t>(batch * tiles + tile)];
  }

  /// Calls visit(place in [batch, heads, tokens, head_dim], place in [batch, heads, tiles, head_dim], batch, head, row,
  /// element) for every element of a valid row.
  template <typename Visit> void for_each(Visit visit) const {
    for (std::int64_t batch = 0; batch < tensor.batch; ++batch)
      for (std::int64_t head = 0; head < tensor.heads; ++head)
        for (std::int64_t row = 0; row < tensor.tokens; ++row) {
          const std::int64_t tile = tile_of_row[static_cast<std::size_t>(batch * tensor.tokens + row)];
          const std::int64_t sequence = batch * tensor.heads + head;
          for (std::int64_t i = 0; tile >= 0 && i < tensor.head_dim; ++i)
            visit(static_cast<std::size_t>((sequence * tensor.tokens + row) * tensor.head_dim + i),
                  static_cast<std::size_t>((sequence * tiles + tile) * tensor.head_dim + i), batch, head, row, i);
        }
  }

  /// Adds each mean's gradient, shared out among the tile's rows.
  void add_shares(std::vector<double>& gradient, const std::vector<double>& of_means) const {
    for_each([&](std::size_t at, std::size_t mean, std::int64_t batch, auto, std::int64_t row, auto) {
      const std::int64_t tile = tile_of_row[static_cast<std::size_t>(batch * tensor.tokens + row)];
      gradient[at] += of_means[mean] / static_cast<double>(count(batch, tile));
    });
  }

  AttentionTensor tensor;
  std::int64_t tiles;
  std::vector<std::int64_t> tile_of_row; // [batch, tokens]; -1: padding
  std::vector<std::int64_t> counts;      // [batch, tiles]
};

/// The means' gradients, [batch, heads, tiles, head_dim] each.
struct MeanGradients {
  std::vector<double> query, key, value;
  std::vector<double> squared_dq_terms, squared_dk_terms; // [batch * kv heads], of the tokens' gradients
};

/// The coarse attention over the means, differentiated. of_coarse: the gradient of its output.
MeanGradients coarse_backward(const VideoSparseResult& means, const std::vector<double>& of_coarse,
                              const TiledRows& queries, const TiledRows& keys, double scale, int threads) {
  MeanGradients result{std::vector<double>(means.pooled_query.size()),
                       std::vector<double>(means.pooled_key.size()),
                       std::vector<double>(means.pooled_value.size()),
                       std::vector<double>(static_cast<std::size_t>(keys.tensor.batch * keys.tensor.heads)),
                       {}};
  result.squared_dk_terms = result.squared_dq_terms;
  const auto width = static_cast<std::size_t>(queries.tensor.head_dim);
  const std::int64_t group = queries.tensor.heads / keys.tensor.heads;
  const auto dot = [&](const double* a, const double* b) {
    double sum = 0;
    for (std::size_t i = 0; i < width; ++i)
      sum += a[i] * b[i];
    return sum;
  };
  const auto divisor = [](const TiledRows& rows, std::int64_t batch, std::int64_t tile) {
    return static_cast<double>(std::max<std::int64_t>(rows.count(batch, tile), 1));
  };
  const auto add = [&](double* sums, double factor, const double* values) {
    for (std::size_t i = 0; i < width; ++i)
      sums[i] += factor * values[i];
  };
  parallel_for(static_cast<std::size_t>(keys.tensor.batch * keys.tensor.heads), threads, [&](std::size_t sequence) {
    const auto batch = static_cast<std::int64_t>(sequence) / keys.tensor.heads;
    const auto row_of = [&](auto& values, std::size_t first, std::int64_t tile) {
      return &values[(first + static_cast<std::size_t>(tile)) * width];
    };
    const std::size_t first_key = sequence * static_cast<std::size_t>(keys.tiles);
    for (std::int64_t member = 0; member < group; ++member) {
      const std::size_t first_query = (sequence * static_cast<std::size_t>(group) + static_cast<std::size_t>(member)) *
                                      static_cast<std::size_t>(queries.tiles);
      for (std::int64_t query = 0; query < queries.tiles; ++query) {
        const double* q = row_of(means.pooled_query, first_query, query);
        const double* gradient = row_of(of_coarse, first_query, query);
        std::vector<double> probabilities(static_cast<std::size_t>(keys.tiles)), of_probabilities = probabilities;
        double maximum = -std::numeric_limits<double>::infinity(), sum = 0, mean = 0;
        const auto for_each_key = [&](auto visit) {
          for (std::int64_t key = 0; key < keys.tiles; ++key)
            if (keys.count(batch, key) > 0)
              visit(key, probabilities[static_cast<std::size_t>(key)], of_probabilities[static_cast<std::size_t>(key)]);
        };
        for_each_key([&](std::int64_t key, double& probability, double& of_probability) {
          probability = scale * dot(q, row_of(means.pooled_key, first_key, key));
          of_probability = dot(gradient, row_of(means.pooled_value, first_key, key));
          maximum = std::max(maximum, probability);
        });
        for_each_key([&](auto, double& probability, double) { sum += probability = std::exp(probability - maximum); });
        for_each_key(
            [&](auto, double& probability, double of_probability) { mean += (probability /= sum) * of_probability; });
        for_each_key([&](std::int64_t key, double probability, double of_probability) {
          const double of_score = scale * probability * (of_probability - mean);
          add(row_of(result.query, first_query, query), of_score, row_of(means.pooled_key, first_key, key));
          add(row_of(result.key, first_key, key), of_score, q);
          add(row_of(result.value, first_key, key), probability, gradient);
          const double term = scale * probability * (std::abs(of_probability) + std::abs(mean));
          const double* k = row_of(means.pooled_key, first_key, key);
          // A mean's gradient is divided by as many tokens as it is added to.
          result.squared_dq_terms[sequence] += term * term * dot(k, k) / divisor(queries, batch, query);
          result.squared_dk_terms[sequence] += term * term * dot(q, q) / divisor(keys, batch, key);
        });
      }
    }
  });
  return result;
}

} // namespace

VideoSparseGradients video_sparse_attention_backward(const VideoSparseAttentionBackward& call, const TensorView* counts,
                                                     const TensorView* indices, int threads) {
  const VideoSparseAttention& forward = call.forward;
  const VideoSparseResult means = video_sparse_attention(forward, counts, indices, threads);
  const Canvas key_canvas = forward.key_canvas.value_or(forward.canvas);
  const TiledRows queries(forward.q, forward.layout, forward.canvas, forward.tile, forward.query_sizes);
  const TiledRows keys(forward.k, forward.layout, key_canvas, forward.tile, forward.key_sizes);
  const AttentionTensor& q = queries.tensor;

  std::vector<std::int32_t> full(static_cast<std::size_t>(q.batch * q.heads * queries.tiles),
                                 static_cast<std::int32_t>(forward.topk));
  std::vector<std::int32_t> chosen = means.selection.indices;
  BlockList pattern{.canvas = forward.canvas, .tile = forward.tile};
  pattern.key_canvas = key_canvas;
  pattern.counts =
      counts ? *counts : TensorView::contiguous(full.data(), DataType::int32, {q.batch, q.heads, queries.tiles});
  pattern.indices =
      indices ? *indices
              : TensorView::contiguous(chosen.data(), DataType::int32, {q.batch, q.heads, queries.tiles, forward.topk});
  pattern.query_sizes = forward.query_sizes;
  pattern.key_sizes = forward.key_sizes;
  AttentionBackward fine{};
  fine.q = forward.q;
  fine.k = forward.k;
  fine.v = forward.v;
  fine.dout = call.dout;
  fine.layout = forward.layout;
  fine.scale = forward.scale;
  Gradients gradients = attention_backward(fine, pattern, threads);

  VideoSparseGradients result{std::move(gradients.dq), {}, std::move(gradients.dk), std::move(gradients.dv), 0, 0};
  const AttentionTensor dout(call.dout, forward.layout);
  const std::optional<AttentionTensor> gate =
      forward.gate ? std::optional(AttentionTensor(*forward.gate, forward.layout)) : std::nullopt;
  if (gate)
    result.dgate.resize(result.dq.size());
  std::vector<double> of_coarse(means.pooled_query.size());
  queries.for_each([&](std::size_t at, std::size_t mean, auto batch, auto head, auto row, auto i) {
    const double gradient = dout.read(batch, head, row, i);
    of_coarse[mean] += gradient * (gate ? gate->read(batch, head, row, i) : 1.0);
    if (gate)
      result.dgate[at] = gradient * means.selection.out[mean];
  });
  const double scale = forward.scale ? double{*forward.scale} : 1 / std::sqrt(static_cast<double>(q.head_dim));
  const MeanGradients of_means = coarse_backward(means, of_coarse, queries, keys, scale, threads);
  const auto norm_with = [](double of_fine, const std::vector<double>& squares) {
    return std::sqrt(std::accumulate(squares.begin(), squares.end(), of_fine * of_fine));
  };
  result.dq_terms = norm_with(gradients.dq_terms, of_means.squared_dq_terms);
  result.dk_terms = norm_with(gradients.dk_terms, of_means.squared_dk_terms);
  queries.add_shares(result.dq, of_means.query);
  keys.add_shares(result.dk, of_means.key);
  keys.add_shares(result.dv, of_means.value);
  return result;
}

} // namespace tilewright::reference
