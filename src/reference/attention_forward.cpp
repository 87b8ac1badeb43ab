#include <tilewright/reference.hpp>

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>
#include <map>
#include <span>

#include <fmt/format.h>

#include "reference/parallel.hpp"
#include "reference/relation.hpp"
#include "reference/tensor.hpp"
#include <tilewright/error.hpp>

namespace tilewright::reference {
namespace {

constexpr std::size_t lanes = 8;      // columns that the inner product keeps in registers; rows are padded to it
constexpr std::size_t key_block = 64; // keys that are brought together for one round of inner products
constexpr std::size_t row_block = 32; // query rows of one work item

constexpr std::size_t padded(std::size_t width) noexcept { return (width + lanes - 1) / lanes * lanes; }

/// sums[0 .. width) += the rows, each times its coefficient. width is a multiple of lanes.
void add_weighted_rows(double* sums, std::size_t width, std::span<const double> coefficients,
                       const double* const* rows) {
  for (std::size_t column = 0; column < width; column += lanes) {
    double accumulators[lanes];
    for (std::size_t lane = 0; lane < lanes; ++lane)
      accumulators[lane] = sums[column + lane];
    for (std::size_t i = 0; i < coefficients.size(); ++i)
      for (std::size_t lane = 0; lane < lanes; ++lane)
        accumulators[lane] += coefficients[i] * rows[i][column + lane];
    for (std::size_t lane = 0; lane < lanes; ++lane)
      sums[column + lane] = accumulators[lane];
  }
}

/// One head of a tensor in float64, its rows padded with zeros to a multiple of lanes.
class HeadMatrix {
public:
  HeadMatrix(const AttentionTensor& tensor, std::int64_t batch, std::int64_t head)
      : width_(padded(static_cast<std::size_t>(tensor.head_dim))),
        values_(static_cast<std::size_t>(tensor.tokens) * width_) {
    for (std::int64_t token = 0; token < tensor.tokens; ++token)
      for (std::int64_t i = 0; i < tensor.head_dim; ++i)
        values_[static_cast<std::size_t>(token) * width_ + static_cast<std::size_t>(i)] =
            tensor.read(batch, head, token, i);
  }
  [[nodiscard]] const double* row(std::int64_t token) const noexcept {
    return values_.data() + static_cast<std::size_t>(token) * width_;
  }

private:
  std::size_t width_;
  std::vector<double> values_;
};

/// Up to row_block query rows of one head that attend to the same keys.
struct WorkItem {
  std::int64_t head;
  std::span<const std::int64_t> rows;
};

/// softmax(scale q k^T) v for some rows of one batch and kv head.
class RowAttention {
public:
  RowAttention(const AttentionForward& call, const Relation& relation, std::int64_t batch, std::int64_t kv_head,
               Result& result)
      : relation_(relation), shape_(relation.shape()), batch_(batch), q_(call.q, call.layout),
        keys_(AttentionTensor(call.k, call.layout), batch, kv_head),
        values_(AttentionTensor(call.v, call.layout), batch, kv_head), result_(result),
        scale_(call.scale ? double{*call.scale} : 1 / std::sqrt(static_cast<double>(shape_.head_dim))),
        head_dim_(static_cast<std::size_t>(shape_.head_dim)) {}

  void operator()(const WorkItem& item) const {
    std::vector<std::int64_t> keys;
    for (std::int64_t key = 0; key < shape_.keys; ++key)
      if (relation_.attends(batch_, item.head, item.rows.front(), key))
        keys.push_back(key);
    if (keys.empty())
      return;
    // [rows, keys], every row padded to whole key blocks.
    const std::size_t stride = (keys.size() + key_block - 1) / key_block * key_block;
    std::vector<double> scores(item.rows.size() * stride, 0.0);
    multiply_query_key(item, keys, scores, stride);
    for (std::size_t row = 0; row < item.rows.size(); ++row)
      result_.lse[result_row(item, row)] = softmax(std::span(scores).subspan(row * stride, keys.size()));
    multiply_probability_value(item, keys, scores, stride);
  }

private:
  [[nodiscard]] std::size_t result_row(const WorkItem& item, std::size_t row) const noexcept {
    return static_cast<std::size_t>((batch_ * shape_.heads + item.head) * shape_.queries + item.rows[row]);
  }

  void multiply_query_key(const WorkItem& item, std::span<const std::int64_t> keys, std::span<double> scores,
                          std::size_t stride) const {
    std::vector<double> queries(item.rows.size() * head_dim_);
    for (std::size_t row = 0; row < item.rows.size(); ++row)
      for (std::size_t i = 0; i < head_dim_; ++i)
        queries[row * head_dim_ + i] =
            scale_ * q_.read(batch_, item.head, item.rows[row], static_cast<std::int64_t>(i));
    std::vector<double> transposed(head_dim_ * key_block); // [head_dim, keys of the block]
    std::vector<const double*> rows(head_dim_);
    for (std::size_t i = 0; i < head_dim_; ++i)
      rows[i] = &transposed[i * key_block];
    for (std::size_t first = 0; first < keys.size(); first += key_block) {
      for (std::size_t j = 0; j < std::min(key_block, keys.size() - first); ++j)
        for (std::size_t i = 0; i < head_dim_; ++i)
          transposed[i * key_block + j] = keys_.row(keys[first + j])[i];
      for (std::size_t row = 0; row < item.rows.size(); ++row)
        add_weighted_rows(&scores[row * stride + first], key_block,
                          std::span(queries).subspan(row * head_dim_, head_dim_), rows.data());
    }
  }

  /// Turns scores into probabilities; returns their log-sum-exp.
  static double softmax(std::span<double> scores) {
    const double maximum = *std::max_element(scores.begin(), scores.end());
    double sum = 0;
    for (double& score : scores)
      sum += score = std::exp(score - maximum);
    for (double& score : scores)
      score /= sum;
    return maximum + std::log(sum);
  }

  void multiply_probability_value(const WorkItem& item, std::span<const std::int64_t> keys,
                                  std::span<const double> probabilities, std::size_t stride) const {
    const std::size_t width = padded(head_dim_);
    std::vector<double> out(item.rows.size() * width);
    std::array<const double*, key_block> rows{};
    for (std::size_t first = 0; first < keys.size(); first += key_block) {
      const std::size_t count = std::min(key_block, keys.size() - first);
      for (std::size_t j = 0; j < count; ++j)
        rows[j] = values_.row(keys[first + j]);
      for (std::size_t row = 0; row < item.rows.size(); ++row)
        add_weighted_rows(&out[row * width], width, probabilities.subspan(row * stride + first, count), rows.data());
    }
    for (std::size_t row = 0; row < item.rows.size(); ++row)
      std::copy_n(&out[row * width], head_dim_, &result_.out[result_row(item, row) * head_dim_]);
  }

  const Relation& relation_;
  const Shape& shape_;
  std::int64_t batch_;
  AttentionTensor q_;
  HeadMatrix keys_, values_;
  Result& result_;
  double scale_;
  std::size_t head_dim_;
};

/// The query rows of a batch, sorted by group, without padding.
std::vector<std::int64_t> rows_by_group(const Relation& relation, std::int64_t batch) {
  std::vector<std::int64_t> rows;
  for (std::int64_t row = 0; row < relation.shape().queries; ++row)
    if (relation.query_group(batch, row) != Relation::padding)
      rows.push_back(row);
  std::stable_sort(rows.begin(), rows.end(), [&](std::int64_t a, std::int64_t b) {
    return relation.query_group(batch, a) < relation.query_group(batch, b);
  });
  return rows;
}

/// Pieces of at most row_block rows, all of one group.
std::vector<std::span<const std::int64_t>> pieces_of(const Relation& relation, std::int64_t batch,
                                                     std::span<const std::int64_t> rows) {
  std::vector<std::span<const std::int64_t>> pieces;
  while (!rows.empty()) {
    std::size_t count = 1;
    while (count < std::min(row_block, rows.size()) &&
           relation.query_group(batch, rows[count]) == relation.query_group(batch, rows[0]))
      ++count;
    pieces.push_back(rows.first(count));
    rows = rows.subspan(count);
  }
  return pieces;
}

void require_memory(const char* name, const TensorView& view) {
  if (!view.data)
    throw Error(ErrorCode::invalid_argument, fmt::format("{}'s pointer is null", name),
                "memory that the host can read is allowed", fmt::format("give {} memory", name));
}

void require_extents(const char* name, const TensorView& view, std::initializer_list<std::int64_t> extents) {
  require_memory(name, view);
  if (view.rank != static_cast<int>(extents.size()) ||
      !std::equal(extents.begin(), extents.end(), view.extents.begin()))
    throw Error(ErrorCode::invalid_argument, fmt::format("{}'s extents do not fit the call", name),
                "q's batch, heads and tokens are allowed", fmt::format("correct {}'s extents", name));
}

} // namespace

Result attention_forward(const AttentionForward& call, const Pattern& pattern, int threads) {
  const Relation relation(call, pattern);
  require_memory("q", call.q);
  require_memory("k", call.k);
  require_memory("v", call.v);
  const Shape& shape = relation.shape();
  const auto result_rows = static_cast<std::size_t>(shape.batch * shape.heads * shape.queries);
  Result result{std::vector<double>(result_rows * static_cast<std::size_t>(shape.head_dim), 0.0),
                std::vector<double>(result_rows, -std::numeric_limits<double>::infinity())};
  const std::int64_t heads_per_kv_head = shape.heads / shape.kv_heads;
  for (std::int64_t batch = 0; batch < shape.batch; ++batch) {
    const auto rows = rows_by_group(relation, batch);
    const auto pieces = pieces_of(relation, batch, rows);
    for (std::int64_t kv_head = 0; kv_head < shape.kv_heads; ++kv_head) {
      const RowAttention attend(call, relation, batch, kv_head, result);
      parallel_for(pieces.size() * static_cast<std::size_t>(heads_per_kv_head), threads, [&](std::size_t item) {
        const auto head = static_cast<std::int64_t>(item / pieces.size());
        attend({kv_head * heads_per_kv_head + head, pieces[item % pieces.size()]});
      });
    }
  }
  return result;
}

void attention_forward_into(const AttentionForward& call, const Pattern& pattern, int threads) {
  const Shape shape = shape_of(call);
  if (call.out.dtype != call.q.dtype)
    throw Error(ErrorCode::invalid_argument, fmt::format("out's dtype is {}", to_string(call.out.dtype)),
                fmt::format("allowed: {}, as q has", to_string(call.q.dtype)), "correct out's dtype");
  const auto& q = call.q.extents;
  require_extents("out", call.out, {q[0], q[1], q[2], q[3]});
  if (call.lse)
    require_extents("lse", *call.lse, {shape.batch, shape.heads, shape.queries});
  Result result = attention_forward(call, pattern, threads);
  if (const auto* lists = std::get_if<BlockList>(&pattern)) {
    if (call.fine)
      write_tensor(*call.fine, call.layout, result.out);
    blend_into(result.out, call, *lists);
  }
  write_tensor(call.out, call.layout, result.out);
  if (call.lse)
    write_lse(*call.lse, result.lse);
}

double valid_pairs(const AttentionForward& call, const Pattern& pattern) {
  const Relation relation(call, pattern);
  const Shape& shape = relation.shape();
  struct Group {
    std::int64_t any_row = 0, rows = 0;
  };
  const auto groups_of = [](std::int64_t rows, auto group_of) {
    std::map<std::int32_t, Group> groups;
    for (std::int64_t row = 0; row < rows; ++row)
      if (const std::int32_t group = group_of(row); group != Relation::padding)
        groups[group] = {row, groups[group].rows + 1};
    return groups;
  };
  double pairs = 0;
  for (std::int64_t batch = 0; batch < shape.batch; ++batch) {
    const auto queries = groups_of(shape.queries, [&](std::int64_t row) { return relation.query_group(batch, row); });
    const auto keys = groups_of(shape.keys, [&](std::int64_t row) { return relation.key_group(batch, row); });
    for (std::int64_t head = 0; head < shape.heads; ++head)
      for (const auto& [query_number, query] : queries)
        for (const auto& [key_number, key] : keys)
          if (relation.attends(batch, head, query.any_row, key.any_row))
            pairs += static_cast<double>(query.rows) * static_cast<double>(key.rows);
  }
  return pairs;
}

double forward_flops(const AttentionForward& call, const Pattern& pattern) {
  return 4 * static_cast<double>(shape_of(call).head_dim) * valid_pairs(call, pattern);
}

} // namespace tilewright::reference
