// The reference's gradients against finite differences of its forward pass, and against what must be zero.
#include <doctest/doctest.h>

#include <cmath>
#include <cstdint>
#include <numeric>
#include <random>
#include <vector>

#include "reference/tensor.hpp"
#include "support_tensor.hpp"
#include <tilewright/reference.hpp>

using namespace tilewright;
using testing::HostTensor;

namespace {

constexpr std::int64_t batch = 2, heads = 4, kv_heads = 2, head_dim = 64;

/// A tensor [batch, tokens, heads, head_dim] and its values in the order of the reference's results: [batch, heads,
/// tokens, head_dim]. Values are multiples of 1/32 below 2, so that a step of 1/32 stays exact in fp16.
struct Input {
  static constexpr double step = 1.0 / 32;

  Input(std::int64_t tokens_, std::int64_t heads_, std::mt19937_64& random)
      : tokens(tokens_), head_count(heads_), tensor(DataType::fp16, {batch, tokens, head_count, head_dim}),
        values(static_cast<std::size_t>(batch * tokens * head_count * head_dim)) {
    std::uniform_int_distribution<int> steps(-40, 40);
    for (double& value : values)
      value = steps(random) * step;
    write({});
  }

  /// The values, moved by so many steps in each element's direction.
  void write(const std::vector<double>& directions, double steps = 0) {
    tensor.fill([&](auto b, auto token, auto head, auto e) {
      const auto i = static_cast<std::size_t>(((b * head_count + head) * tokens + token) * head_dim + e);
      return values[i] + (directions.empty() ? 0 : steps * step * directions[i]);
    });
  }

  std::int64_t tokens, head_count;
  HostTensor tensor;
  std::vector<double> values;
};

struct Differences {
  Differences(std::int64_t queries, std::int64_t keys, std::uint64_t seed)
      : random(seed), q(queries, heads, random), k(keys, kv_heads, random), v(keys, kv_heads, random),
        dout(queries, heads, random), dlse(DataType::float32, {batch, heads, queries}) {
    std::normal_distribution<double> normal;
    dlse.fill([&](auto...) { return normal(random); });
  }

  AttentionForward forward() {
    return {.q = q.tensor.view(), .k = k.tensor.view(), .v = v.tensor.view(), .out = dout.tensor.view()};
  }
  AttentionBackward backward() { // the reference looks at q, k, v, dout and dlse alone
    const TensorView &query = q.tensor.view(), &key = k.tensor.view(), &value = v.tensor.view();
    const TensorView& gradient = dout.tensor.view();
    return {.q = query,
            .k = key,
            .v = value,
            .out = gradient,
            .dout = gradient,
            .lse = {},
            .dq = query,
            .dk = key,
            .dv = value,
            .dlse = dlse.view()};
  }

  /// sum(dout * out) + sum(dlse * lse), over the rows that have keys
  double loss(const Pattern& pattern) {
    const reference::Result result = reference::attention_forward(forward(), pattern);
    double sum = std::inner_product(result.out.begin(), result.out.end(), dout.values.begin(), 0.0);
    const std::vector<double> weights = reference::read_lse(dlse.view());
    for (std::size_t row = 0; row < weights.size(); ++row)
      sum += std::isfinite(result.lse[row]) ? weights[row] * result.lse[row] : 0;
    return sum;
  }

  std::mt19937_64 random;
  Input q, k, v, dout;
  HostTensor dlse;
};

/// The derivative of the loss along random signs of one input: by the gradient, and by central differences.
void check_direction(Differences& problem, Input& input, const std::vector<double>& gradient, const Pattern& pattern) {
  std::vector<double> signs(gradient.size());
  std::bernoulli_distribution coin;
  for (double& sign : signs)
    sign = coin(problem.random) ? 1 : -1;
  input.write(signs, 1);
  const double above = problem.loss(pattern);
  input.write(signs, -1);
  const double below = problem.loss(pattern);
  input.write({});
  const double found = (above - below) / (2 * Input::step);
  const double expected = std::inner_product(gradient.begin(), gradient.end(), signs.begin(), 0.0);
  const double norm = std::sqrt(std::inner_product(gradient.begin(), gradient.end(), gradient.begin(), 0.0));
  // The sum over random signs is about the norm. Central differences leave out terms of the second order in the step.
  CHECK(norm > 0);
  CHECK(std::abs(found - expected) <= 1e-2 * norm);
}

void check_pattern(std::int64_t queries, std::int64_t keys, const Pattern& pattern) {
  for (const std::uint64_t seed : {1U, 2U, 3U}) {
    Differences problem(queries, keys, seed);
    const reference::Gradients gradients = reference::attention_backward(problem.backward(), pattern);
    check_direction(problem, problem.q, gradients.dq, pattern);
    check_direction(problem, problem.k, gradients.dk, pattern);
    check_direction(problem, problem.v, gradients.dv, pattern);
  }
}

} // namespace

TEST_CASE("gradients of dense attention are the forward pass's finite differences") { check_pattern(40, 56, Dense{}); }

TEST_CASE("gradients of sliding tiles with text and clipped tiles are finite differences") {
  const SlidingTile pattern{.canvas = {4, 8, 10}, .tile = {4, 4, 4}, .windows = {{1, 1, 3}}, .text_length = 5};
  check_pattern(4 * 8 * 10 + 8, 4 * 8 * 10 + 8, pattern);
}

TEST_CASE("gradients of block lists are finite differences, and zero where nobody looks") {
  HostTensor counts(DataType::int32, {1, heads, 2}), indices(DataType::int32, {1, heads, 2, 2});
  counts.fill([](auto, auto, auto tile, auto) { return tile == 0 ? 2.0 : 1.0; });
  indices.fill([](auto, auto, auto tile, auto entry) { return static_cast<double>(tile == 0 ? entry : 1 + entry); });
  const BlockList pattern = BlockList::linear(128, 256, 64, 64, counts.view(), indices.view());
  check_pattern(128, 256, pattern);

  Differences problem(128, 256, 9);
  const reference::Gradients gradients = reference::attention_backward(problem.backward(), pattern);
  for (std::int64_t b = 0; b < batch; ++b)
    for (std::int64_t head = 0; head < kv_heads; ++head)
      for (std::int64_t token = 128; token < 256; ++token) // blocks 2 and 3 are in no list
        for (std::int64_t e = 0; e < head_dim; ++e) {
          const auto i = static_cast<std::size_t>(((b * kv_heads + head) * 256 + token) * head_dim + e);
          REQUIRE(gradients.dk[i] == 0);
          REQUIRE(gradients.dv[i] == 0);
        }
}

TEST_CASE("gradients with delta from a given out: exact where out is, and linear in it") {
  const Pattern pattern = Dense{};
  Differences problem(24, 40, 4);
  for (std::size_t i = 0; i < problem.v.values.size(); ++i) // all values are the same: out is one of them, exactly
    problem.v.values[i] = problem.v.values[i % head_dim];
  problem.v.write({});
  Input out(24, heads, problem.random);
  for (std::size_t i = 0; i < out.values.size(); ++i)
    out.values[i] = problem.v.values[i % head_dim];
  out.write({});
  AttentionBackward call = problem.backward();
  call.out = out.tensor.view();
  call.dlse.reset();
  const auto delta = reference::BackwardDelta::of_out;
  const reference::Gradients zero = reference::attention_backward(call, pattern, 0, delta);
  const reference::Gradients exact = reference::attention_backward(call, pattern);
  // Twice the out: the scores' gradients become -P delta, so dq = -scale delta sum(P k), an attention over the keys.
  for (double& value : out.values)
    value *= 2;
  out.write({});
  const reference::Gradients doubled = reference::attention_backward(call, pattern, 0, delta);
  AttentionForward over_keys = problem.forward();
  over_keys.v = over_keys.k;
  const std::vector<double> means = reference::attention_forward(over_keys, pattern).out;
  const double scale = 1 / std::sqrt(static_cast<double>(head_dim));
  for (std::size_t i = 0; i < means.size(); ++i) {
    const std::size_t row = i / head_dim * head_dim;
    const double row_delta = std::inner_product(
        problem.dout.values.begin() + static_cast<std::ptrdiff_t>(row),
        problem.dout.values.begin() + static_cast<std::ptrdiff_t>(row + head_dim), problem.v.values.begin(), 0.0);
    REQUIRE(std::abs(zero.dq[i] - exact.dq[i]) < 1e-12);
    REQUIRE(std::abs(doubled.dq[i] + scale * row_delta * means[i]) < 1e-9);
  }
}
