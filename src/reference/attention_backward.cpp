#include <tilewright/reference.hpp>

#include <algorithm>
#include <cmath>
#include <limits>
#include <map>
#include <numeric>

#include "reference/parallel.hpp"
#include "reference/relation.hpp"
#include "reference/tensor.hpp"

namespace tilewright::reference {
namespace {

/// One head of a tensor in float64, [tokens, head_dim].
std::vector<double> read_head(const AttentionTensor& tensor, std::int64_t batch, std::int64_t head) {
  std::vector<double> values;
  values.reserve(static_cast<std::size_t>(tensor.tokens * tensor.head_dim));
  for (std::int64_t token = 0; token < tensor.tokens; ++token)
    for (std::int64_t i = 0; i < tensor.head_dim; ++i)
      values.push_back(tensor.read(batch, head, token, i));
  return values;
}

double dot(const double* a, const double* b, std::size_t count) {
  double sum = 0;
  for (std::size_t i = 0; i < count; ++i)
    sum += a[i] * b[i];
  return sum;
}

void add_scaled(double* sums, double factor, const double* values, std::size_t count) {
  for (std::size_t i = 0; i < count; ++i)
    sums[i] += factor * values[i];
}

/// The gradients of one batch and key/value head, query head by query head, row by row, from the chain rule alone:
/// lse is not looked at, and out only with BackwardDelta::of_out.
class HeadGradients {
public:
  HeadGradients(const AttentionBackward& call, const Relation& relation, std::int64_t batch, std::int64_t kv_head,
                BackwardDelta delta, Gradients& result)
      : relation_(relation), shape_(relation.shape()), batch_(batch), kv_head_(kv_head), delta_(delta),
        width_(static_cast<std::size_t>(shape_.head_dim)),
        scale_(call.scale ? double{*call.scale} : 1 / std::sqrt(static_cast<double>(shape_.head_dim))),
        keys_(read_head(AttentionTensor(call.k, call.layout), batch, kv_head)),
        values_(read_head(AttentionTensor(call.v, call.layout), batch, kv_head)), result_(result) {}

  /// Squared L2 norms of the terms of dq and dk.
  [[nodiscard]] double squared_dq_terms() const noexcept { return squared_dq_terms_; }
  [[nodiscard]] double squared_dk_terms() const noexcept { return squared_dk_terms_; }

  void add_query_head(const AttentionBackward& call, std::int64_t head) {
    const auto queries = read_head(AttentionTensor(call.q, call.layout), batch_, head);
    const auto gradients = read_head(AttentionTensor(call.dout, call.layout), batch_, head);
    const auto outputs = delta_ == BackwardDelta::of_out
                             ? read_head(AttentionTensor(call.out, call.layout), batch_, head)
                             : std::vector<double>();
    const auto* const of_lse = call.dlse ? static_cast<const float*>(call.dlse->data) + batch_ * call.dlse->strides[0] +
                                               head * call.dlse->strides[1]
                                         : nullptr;
    std::map<std::int32_t, std::vector<std::int64_t>> keys_of_group;
    for (std::int64_t row = 0; row < shape_.queries; ++row) {
      const std::int32_t group = relation_.query_group(batch_, row);
      if (group == Relation::padding)
        continue;
      const auto [entry, first_of_group] = keys_of_group.try_emplace(group);
      if (first_of_group)
        for (std::int64_t key = 0; key < shape_.keys; ++key)
          if (relation_.attends(batch_, head, row, key))
            entry->second.push_back(key);
      const std::size_t at = static_cast<std::size_t>(row) * width_;
      const std::size_t result_row =
          static_cast<std::size_t>((batch_ * shape_.heads + head) * shape_.queries + row) * width_;
      add_row(entry->second, &queries[at], &gradients[at], outputs.empty() ? nullptr : &outputs[at],
              of_lse == nullptr ? 0 : double{of_lse[row]}, &result_.dq[result_row]);
    }
  }

private:
  /// output: null, or the row of out to take delta from. of_lse: the loss's gradient with respect to the row's lse,
  /// whose own with respect to a score is the probability.
  void add_row(const std::vector<std::int64_t>& keys, const double* query, const double* gradient, const double* output,
               double of_lse, double* dq) {
    if (keys.empty())
      return;
    std::vector<double> probabilities, of_probabilities;
    double maximum = -std::numeric_limits<double>::infinity();
    for (const std::int64_t key : keys) {
      probabilities.push_back(scale_ * dot(query, row_of(keys_, key), width_));
      of_probabilities.push_back(dot(gradient, row_of(values_, key), width_));
      maximum = std::max(maximum, probabilities.back());
    }
    double sum = 0;
    for (double& probability : probabilities)
      sum += probability = std::exp(probability - maximum);
    double mean = 0; // of the probabilities' gradients: what normalising takes away
    for (std::size_t i = 0; i < keys.size(); ++i)
      mean += (probabilities[i] /= sum) * of_probabilities[i];
    if (output != nullptr)
      mean = dot(gradient, output, width_);
    for (std::size_t i = 0; i < keys.size(); ++i) {
      const double of_score = probabilities[i] * (of_probabilities[i] - mean + of_lse);
      const std::size_t result_row =
          static_cast<std::size_t>((batch_ * shape_.kv_heads + kv_head_) * shape_.keys + keys[i]) * width_;
      add_scaled(dq, scale_ * of_score, row_of(keys_, keys[i]), width_);
      add_scaled(&result_.dk[result_row], scale_ * of_score, query, width_);
      add_scaled(&result_.dv[result_row], probabilities[i], gradient, width_);
    }
    add_terms(keys, probabilities, of_probabilities, query, gradient, mean, of_lse);
  }

  /// Each score's gradient is a difference of two terms; the mean is a sum of head_dim products, whose errors all keys
  /// of the row share.
  void add_terms(const std::vector<std::int64_t>& keys, const std::vector<double>& probabilities,
                 const std::vector<double>& of_probabilities, const double* query, const double* gradient, double mean,
                 double of_lse) {
    std::vector<double> out(width_), mean_key(width_);
    double squared_probabilities = 0;
    const double squared_query = dot(query, query, width_);
    for (std::size_t i = 0; i < keys.size(); ++i) {
      const double* key = row_of(keys_, keys[i]);
      add_scaled(out.data(), probabilities[i], row_of(values_, keys[i]), width_);
      add_scaled(mean_key.data(), probabilities[i], key, width_);
      squared_probabilities += probabilities[i] * probabilities[i];
      const double term =
          scale_ * probabilities[i] * (std::abs(of_probabilities[i]) + std::abs(mean) + std::abs(of_lse));
      squared_dq_terms_ += term * term * dot(key, key, width_);
      squared_dk_terms_ += term * term * squared_query;
    }
    double squared_mean_terms = 0;
    for (std::size_t i = 0; i < width_; ++i)
      squared_mean_terms += scale_ * scale_ * gradient[i] * gradient[i] * out[i] * out[i];
    squared_dq_terms_ += squared_mean_terms * dot(mean_key.data(), mean_key.data(), width_);
    squared_dk_terms_ += squared_mean_terms * squared_probabilities * squared_query;
  }

  [[nodiscard]] const double* row_of(const std::vector<double>& values, std::int64_t token) const {
    return &values[static_cast<std::size_t>(token) * width_];
  }

  const Relation& relation_;
  const Shape& shape_;
  std::int64_t batch_, kv_head_;
  BackwardDelta delta_;
  std::size_t width_;
  double scale_;
  std::vector<double> keys_, values_;
  Gradients& result_;
  double squared_dq_terms_ = 0, squared_dk_terms_ = 0;
};

} // namespace

Gradients attention_backward(const AttentionBackward& call, const Pattern& pattern, int threads, BackwardDelta delta) {
  AttentionForward forward{};
  forward.q = call.q;
  forward.k = call.k;
  forward.v = call.v;
  forward.layout = call.layout;
  const Relation relation(forward, pattern);
  const Shape& shape = relation.shape();
  const auto elements = [&](std::int64_t heads, std::int64_t tokens) {
    return static_cast<std::size_t>(shape.batch * heads * tokens * shape.head_dim);
  };
  Gradients result{std::vector<double>(elements(shape.heads, shape.queries)),
                   std::vector<double>(elements(shape.kv_heads, shape.keys)),
                   std::vector<double>(elements(shape.kv_heads, shape.keys)), 0, 0};
  const std::int64_t group = shape.heads / shape.kv_heads;
  std::vector<double> dq_terms(static_cast<std::size_t>(shape.batch * shape.kv_heads)), dk_terms = dq_terms;
  parallel_for(static_cast<std::size_t>(shape.batch * shape.kv_heads), threads, [&](std::size_t item) {
    const auto batch = static_cast<std::int64_t>(item) / shape.kv_heads;
    const auto kv_head = static_cast<std::int64_t>(item) % shape.kv_heads;
    HeadGradients gradients(call, relation, batch, kv_head, delta, result);
    for (std::int64_t head = kv_head * group; head < (kv_head + 1) * group; ++head)
      gradients.add_query_head(call, head);
    dq_terms[item] = gradients.squared_dq_terms();
    dk_terms[item] = gradients.squared_dk_terms();
  });
  result.dq_terms = std::sqrt(std::accumulate(dq_terms.begin(), dq_terms.end(), 0.0));
  result.dk_terms = std::sqrt(std::accumulate(dk_terms.begin(), dk_terms.end(), 0.0));
  return result;
}

} // namespace tilewright::reference
