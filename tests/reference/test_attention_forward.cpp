#include <doctest/doctest.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>
#include <numeric>
#include <random>
#include <vector>

#include "reference/compare.hpp"
#include "reference/tensor.hpp"
#include "support_tensor.hpp"
#include <tilewright/error.hpp>
#include <tilewright/reference.hpp>

using namespace tilewright;
using reference::Result;
using tilewright::testing::HostTensor;

namespace {

constexpr double minus_infinity = -std::numeric_limits<double>::infinity();

struct Sizes {
  std::int64_t batch = 1, heads = 1, kv_heads = 1, queries = 1, keys = 1, head_dim = 4;
  Layout layout = Layout::raster;
  DataType dtype = DataType::bf16;
};

HostTensor make_tensor(const Sizes& s, std::int64_t tokens, std::int64_t heads) {
  return s.layout == Layout::raster ? HostTensor(s.dtype, {s.batch, tokens, heads, s.head_dim})
                                    : HostTensor(s.dtype, {s.batch, heads, tokens, s.head_dim});
}

/// A call's tensors, filled with random numbers.
struct Tensors {
  explicit Tensors(const Sizes& s)
      : layout(s.layout), q(make_tensor(s, s.queries, s.heads)), k(make_tensor(s, s.keys, s.kv_heads)),
        v(make_tensor(s, s.keys, s.kv_heads)), out(make_tensor(s, s.queries, s.heads)),
        lse(DataType::float32, {s.batch, s.heads, s.queries}) {
    std::mt19937 generator(7);
    for (HostTensor* tensor : {&q, &k, &v})
      tensor->fill([&](auto...) { return std::normal_distribution<double>()(generator); });
  }
  [[nodiscard]] AttentionForward call() const {
    return {.q = q.view(), .k = k.view(), .v = v.view(), .out = out.view(), .lse = lse.view(), .layout = layout};
  }
  Layout layout;
  HostTensor q, k, v, out, lse;
};

std::vector<double> values_of(const HostTensor& tensor, Layout layout = Layout::raster) {
  return reference::read_tensor(tensor.view(), layout);
}

/// Of one row of a result with the given sizes.
std::vector<double> row(const Result& result, const Sizes& s, std::int64_t batch, std::int64_t head,
                        std::int64_t query) {
  const auto first = result.out.begin() + ((batch * s.heads + head) * s.queries + query) * s.head_dim;
  return {first, first + s.head_dim};
}
double lse(const Result& result, const Sizes& s, std::int64_t batch, std::int64_t head, std::int64_t query) {
  return result.lse[static_cast<std::size_t>((batch * s.heads + head) * s.queries + query)];
}

bool close(const std::vector<double>& a, const std::vector<double>& b) {
  return reference::output_error(a, b).relative_l2 < 1e-12; // float64, sums in another order
}
bool close(const Result& a, const Result& b) {
  return close(a.out, b.out) && reference::lse_error(a.lse, b.lse) < 1e-12;
}

/// One query against some keys of the first batch and head by the textbook, in the tensors' own token order.
std::vector<double> attend_to(const Tensors& tensors, const Sizes& s, std::int64_t query,
                              const std::vector<int>& keys) {
  const auto q = values_of(tensors.q, s.layout), k = values_of(tensors.k, s.layout), v = values_of(tensors.v, s.layout);
  const auto at = [&](const std::vector<double>& x, std::int64_t token, std::int64_t i) {
    return x[static_cast<std::size_t>(token * s.head_dim + i)];
  };
  std::vector<double> out(static_cast<std::size_t>(s.head_dim));
  double sum = 0;
  for (const int key : keys) {
    double score = 0;
    for (std::int64_t i = 0; i < s.head_dim; ++i)
      score += at(q, query, i) * at(k, key, i);
    const double weight = std::exp(score / std::sqrt(static_cast<double>(s.head_dim)));
    sum += weight;
    for (std::int64_t i = 0; i < s.head_dim; ++i)
      out[static_cast<std::size_t>(i)] += weight * at(v, key, i);
  }
  for (double& x : out)
    x /= sum;
  return out;
}

HostTensor integers(std::initializer_list<std::int64_t> extents, const std::vector<std::int32_t>& values) {
  HostTensor tensor(DataType::int32, extents);
  std::size_t next = 0;
  tensor.fill([&](auto...) { return values.at(next++); });
  return tensor;
}

std::string problem_of(const AttentionForward& call, const Pattern& pattern) {
  try {
    reference::attention_forward(call, pattern, 1);
  } catch (const Error& error) {
    CHECK(error.code() == ErrorCode::invalid_argument);
    return error.problem();
  }
  return "no error";
}

} // namespace

TEST_CASE("two keys, computed by hand") {
  const Sizes s{.queries = 1, .keys = 2, .head_dim = 2};
  Tensors tensors(s);
  tensors.q.fill([](auto, auto, auto, auto i) { return i == 0 ? 1 : 0; });
  tensors.k.fill([](auto, auto token, auto, auto i) { return i == 0 && token == 1 ? 2 : 0; }); // scores 0 and 2
  tensors.v.fill([](auto, auto token, auto, auto i) { return i == 0 ? double(token) : 3.0; });
  AttentionForward call = tensors.call();
  call.scale = 0.5f; // scores 0 and 1: weights 1 and e
  const Result result = reference::attention_forward(call, Dense{});
  const double e = std::exp(1.0);
  CHECK(result.out[0] == doctest::Approx(e / (1 + e)).epsilon(1e-14));
  CHECK(result.out[1] == doctest::Approx(3).epsilon(1e-14));
  CHECK(result.lse[0] == doctest::Approx(std::log(1 + e)).epsilon(1e-14));
  call.scale.reset(); // 1/sqrt(2)
  CHECK(reference::attention_forward(call, Dense{}).lse[0] == doctest::Approx(std::log(1 + std::exp(std::sqrt(2.0)))));
}

TEST_CASE("one key gives its value, and its score as the log-sum-exp") {
  const Sizes s{.heads = 2, .kv_heads = 2, .queries = 5, .keys = 1, .head_dim = 8};
  Tensors tensors(s);
  const Result result = reference::attention_forward(tensors.call(), Dense{});
  const auto q = values_of(tensors.q), k = values_of(tensors.k), v = values_of(tensors.v);
  for (std::int64_t head = 0; head < 2; ++head)
    for (std::int64_t query = 0; query < 5; ++query) {
      CHECK(close(row(result, s, 0, head, query), {v.begin() + head * 8, v.begin() + head * 8 + 8}));
      const auto first = q.begin() + (head * 5 + query) * 8;
      const double score = std::inner_product(first, first + 8, k.begin() + head * 8, 0.0) / std::sqrt(8.0);
      CHECK(lse(result, s, 0, head, query) == doctest::Approx(score).epsilon(1e-12));
    }
}

TEST_CASE("the same value everywhere is the result") {
  const Sizes s{.batch = 2, .heads = 2, .kv_heads = 1, .queries = 70, .keys = 131, .head_dim = 12};
  Tensors tensors(s);
  tensors.v.fill([](auto, auto, auto, auto i) { return double(i) - 3; });
  const Result result = reference::attention_forward(tensors.call(), Dense{});
  for (std::size_t i = 0; i < result.out.size(); ++i)
    CHECK(result.out[i] == doctest::Approx(double(i % 12) - 3).epsilon(1e-12));
}

TEST_CASE("dense rows equal the textbook, and no order of keys matters") {
  const Sizes s{.queries = 67, .keys = 200, .head_dim = 20};
  Tensors tensors(s);
  const Result result = reference::attention_forward(tensors.call(), Dense{});
  std::vector<int> keys(200);
  for (int key = 0; key < 200; ++key)
    keys[static_cast<std::size_t>(key)] = 199 - key;
  for (const std::int64_t query : {0, 31, 32, 66})
    CHECK(close(row(result, s, 0, 0, query), attend_to(tensors, s, query, keys)));

  Tensors reversed(s);
  const auto k = values_of(tensors.k), v = values_of(tensors.v);
  reversed.k.fill([&](auto, auto token, auto, auto i) { return k[static_cast<std::size_t>((199 - token) * 20 + i)]; });
  reversed.v.fill([&](auto, auto token, auto, auto i) { return v[static_cast<std::size_t>((199 - token) * 20 + i)]; });
  CHECK(close(reference::attention_forward(reversed.call(), Dense{}), result));
}

TEST_CASE("layouts, strides and the number of threads change nothing") {
  const Sizes raster{.batch = 2, .heads = 4, .kv_heads = 2, .queries = 45, .keys = 33, .head_dim = 16};
  Sizes tiled = raster;
  tiled.layout = Layout::tiled;
  Tensors a(raster), b(tiled);
  const auto copy = [](HostTensor& target, const HostTensor& source) {
    const TensorView& view = source.view();
    const auto values = values_of(source);
    target.fill([&](auto batch, auto head, auto token, auto i) {
      return values[static_cast<std::size_t>(((batch * view.extents[2] + head) * view.extents[1] + token) * 16 + i)];
    });
  };
  copy(b.q, a.q);
  copy(b.k, a.k);
  copy(b.v, a.v);
  const Result result = reference::attention_forward(a.call(), Dense{}, 1);
  CHECK(close(reference::attention_forward(b.call(), Dense{}, 5), result));

  HostTensor gaps(DataType::bf16, {2, 33, 2, 16}, {5000, 72, 24, 1});
  const auto k = values_of(b.k, Layout::tiled);
  gaps.fill([&](auto batch, auto token, auto head, auto i) {
    return k[static_cast<std::size_t>(((batch * 2 + head) * 33 + token) * 16 + i)];
  });
  AttentionForward call = a.call();
  call.k = gaps.view();
  CHECK(close(reference::attention_forward(call, Dense{}), result));
  CHECK(gaps.damaged_bytes() == 0);
}

TEST_CASE("grouped heads read the keys of their group") {
  const Sizes s{.heads = 6, .kv_heads = 2, .queries = 9, .keys = 9, .head_dim = 8};
  Tensors tensors(s);
  const Result result = reference::attention_forward(tensors.call(), Dense{});
  Sizes full = s;
  full.kv_heads = 6;
  Tensors repeated(full);
  repeated.q.fill([q = values_of(tensors.q)](auto, auto token, auto head, auto i) {
    return q[static_cast<std::size_t>((head * 9 + token) * 8 + i)];
  });
  for (auto [target, source] : {std::pair{&repeated.k, &tensors.k}, std::pair{&repeated.v, &tensors.v}})
    target->fill([values = values_of(*source)](auto, auto token, auto head, auto i) {
      return values[static_cast<std::size_t>((head / 3 * 9 + token) * 8 + i)];
    });
  CHECK(close(reference::attention_forward(repeated.call(), Dense{}), result));
}

TEST_CASE("sliding tile: a one-dimensional window by hand") {
  // Tiles of 2: tokens 01 23 45 67 8. Window 3: tile 0 sees tiles 0-2, tile 2 sees 1-3, tile 4 (token 8) sees 2-4.
  const Sizes s{.queries = 9, .keys = 9, .head_dim = 8};
  Tensors tensors(s);
  const SlidingTile pattern{.canvas = {1, 1, 9}, .tile = {1, 1, 2}, .windows = {{1, 1, 3}}};
  const Result result = reference::attention_forward(tensors.call(), pattern);
  CHECK(close(row(result, s, 0, 0, 0), attend_to(tensors, s, 0, {0, 1, 2, 3, 4, 5})));
  CHECK(close(row(result, s, 0, 0, 5), attend_to(tensors, s, 5, {2, 3, 4, 5, 6, 7})));
  CHECK(close(row(result, s, 0, 0, 8), attend_to(tensors, s, 8, {4, 5, 6, 7, 8})));
  // Pairs: tile 0: 2*6, 1: 2*6, 2: 2*6, 3: 2*5, 4: 1*5.
  CHECK(reference::valid_pairs(tensors.call(), pattern) == 51);
  CHECK(reference::forward_flops(tensors.call(), pattern) == 51 * 4 * 8);
}

TEST_CASE("sliding tile: three axes, and a window of its own for each head") {
  // Canvas 2x2x4, tiles 1x2x2: tile (t, 0, w) holds tokens t*8 + {0, 1, 4, 5} + 2w.
  const Sizes s{.heads = 2, .kv_heads = 1, .queries = 16, .keys = 16, .head_dim = 8};
  Tensors tensors(s);
  const SlidingTile pattern{.canvas = {2, 2, 4}, .tile = {1, 2, 2}, .windows = {{1, 1, 2}, {3, 1, 1}}};
  const Result result = reference::attention_forward(tensors.call(), pattern);
  CHECK(close(row(result, s, 0, 0, 9), attend_to(tensors, s, 9, {8, 9, 10, 11, 12, 13, 14, 15})));
  const Sizes one_head{.queries = 16, .keys = 16, .head_dim = 8};
  Tensors second(one_head);
  second.q.fill([q = values_of(tensors.q)](auto, auto token, auto, auto i) {
    return q[static_cast<std::size_t>((16 + token) * 8 + i)];
  });
  second.k.fill([k = values_of(tensors.k)](auto, auto token, auto, auto i) {
    return k[static_cast<std::size_t>(token * 8 + i)];
  });
  second.v.fill([v = values_of(tensors.v)](auto, auto token, auto, auto i) {
    return v[static_cast<std::size_t>(token * 8 + i)];
  });
  CHECK(close(row(result, s, 0, 1, 15), attend_to(second, one_head, 15, {2, 3, 6, 7, 10, 11, 14, 15})));
  CHECK(reference::valid_pairs(tensors.call(), pattern) == 16 * 8 + 16 * 8);
}

TEST_CASE("sliding tile: a window over everything is dense attention") {
  for (const Layout layout : {Layout::raster, Layout::tiled}) {
    const Sizes s{.heads = 2, .kv_heads = 2, .queries = 64, .keys = 64, .head_dim = 8, .layout = layout};
    Tensors tensors(s);
    const SlidingTile pattern{.canvas = {4, 4, 4}, .tile = {2, 2, 2}, .windows = {{2, 3, 7}}};
    CHECK(close(reference::attention_forward(tensors.call(), pattern),
                reference::attention_forward(tensors.call(), Dense{})));
  }
}

TEST_CASE("sliding tile: text sees everything and everything sees text, up to its length") {
  const Sizes s{.queries = 6 + 4, .keys = 6 + 4, .head_dim = 8};
  Tensors tensors(s);
  SlidingTile pattern{.canvas = {1, 1, 6}, .tile = {1, 1, 2}, .windows = {{1, 1, 1}}, .text_length = 3};
  const Result result = reference::attention_forward(tensors.call(), pattern);
  CHECK(close(row(result, s, 0, 0, 2), attend_to(tensors, s, 2, {2, 3, 6, 7, 8})));
  CHECK(close(row(result, s, 0, 0, 7), attend_to(tensors, s, 7, {0, 1, 2, 3, 4, 5, 6, 7, 8})));
  CHECK(row(result, s, 0, 0, 9) == std::vector<double>(8, 0.0)); // padding
  CHECK(lse(result, s, 0, 0, 9) == minus_infinity);
  CHECK(reference::valid_pairs(tensors.call(), pattern) == 6 * 5 + 3 * 9);

  pattern.text_length = 0;
  const Result no_text = reference::attention_forward(tensors.call(), pattern);
  CHECK(close(row(no_text, s, 0, 0, 2), attend_to(tensors, s, 2, {2, 3})));
  CHECK(lse(no_text, s, 0, 0, 6) == minus_infinity);
}

TEST_CASE("tiled layout: valid tokens first, padding rows are empty, text after the last tile") {
  // Canvas 1x3x3, tiles 1x2x2: tile 0 holds (0,0)(0,1)(1,0)(1,1), tile 1 (0,2)(1,2), tile 2 (2,0)(2,1), tile 3 (2,2).
  const std::array<int, 9> raster_of{0, 1, 3, 4, 2, 5, 6, 7, 8};
  const std::array<int, 9> tiled_row{0, 1, 2, 3, 4, 5, 8, 9, 12};
  const Sizes raster{.queries = 9 + 2, .keys = 9 + 2, .head_dim = 8};
  const Sizes tiled{.queries = 16 + 2, .keys = 16 + 2, .head_dim = 8, .layout = Layout::tiled};
  Tensors a(raster), b(tiled);
  const auto source_of = [&](std::int64_t tiled_token) -> std::int64_t { // -1: padding
    if (tiled_token >= 16)
      return tiled_token - 16 + 9;
    for (std::size_t i = 0; i < tiled_row.size(); ++i)
      if (tiled_row[i] == tiled_token)
        return raster_of[i];
    return -1;
  };
  for (auto [target, source] : {std::pair{&b.q, &a.q}, std::pair{&b.k, &a.k}, std::pair{&b.v, &a.v}})
    target->fill([&, values = values_of(*source)](auto, auto, auto token, auto i) {
      const std::int64_t from = source_of(token);
      return from < 0 ? std::numeric_limits<double>::quiet_NaN() : values[static_cast<std::size_t>(from * 8 + i)];
    });
  const SlidingTile pattern{.canvas = {1, 3, 3}, .tile = {1, 2, 2}, .windows = {{1, 1, 2}}, .text_length = 1};
  const SlidingTile narrow{.canvas = {1, 3, 3}, .tile = {1, 2, 2}, .windows = {{1, 1, 1}}, .text_length = 2};
  for (const SlidingTile& p : {pattern, narrow}) {
    const Result expected = reference::attention_forward(a.call(), p),
                 actual = reference::attention_forward(b.call(), p);
    for (std::int64_t token = 0; token < 18; ++token) {
      CAPTURE(token);
      const std::int64_t from = source_of(token);
      if (from < 0) {
        CHECK(row(actual, tiled, 0, 0, token) == std::vector<double>(8, 0.0));
        CHECK(lse(actual, tiled, 0, 0, token) == minus_infinity);
      } else {
        CHECK(close(row(actual, tiled, 0, 0, token), row(expected, raster, 0, 0, from)));
        CHECK(reference::lse_error(std::vector{lse(actual, tiled, 0, 0, token)},
                                   std::vector{lse(expected, raster, 0, 0, from)}) < 1e-12);
      }
    }
    CHECK(reference::valid_pairs(b.call(), p) == reference::valid_pairs(a.call(), p));
  }
}

TEST_CASE("block lists: each query tile its own keys, an empty list nothing") {
  // Query tiles of 2 over 5 tokens, key tiles of 3 over 7: key tile 2 holds token 6 only.
  const Sizes s{.queries = 5, .keys = 7, .head_dim = 8};
  Tensors tensors(s);
  const HostTensor counts = integers({1, 1, 3}, {2, 0, 1});
  const HostTensor indices = integers({1, 1, 3, 2}, {0, 2, 99, 99, 1, 99});
  const BlockList pattern = BlockList::linear(5, 7, 2, 3, counts.view(), indices.view());
  const Result result = reference::attention_forward(tensors.call(), pattern);
  CHECK(close(row(result, s, 0, 0, 1), attend_to(tensors, s, 1, {0, 1, 2, 6})));
  CHECK(row(result, s, 0, 0, 2) == std::vector<double>(8, 0.0));
  CHECK(lse(result, s, 0, 0, 3) == minus_infinity);
  CHECK(close(row(result, s, 0, 0, 4), attend_to(tensors, s, 4, {3, 4, 5})));
  CHECK(reference::valid_pairs(tensors.call(), pattern) == 2 * 4 + 1 * 3);
}

TEST_CASE("block lists: of each batch and head, or shared by all") {
  const Sizes s{.batch = 2, .heads = 2, .kv_heads = 2, .queries = 4, .keys = 4, .head_dim = 8};
  Tensors tensors(s);
  const HostTensor counts = integers({1, 2, 2}, {1, 1, 1, 1});
  const HostTensor indices = integers({2, 1, 2, 1}, {0, 1, 1, 0});
  const BlockList pattern = BlockList::linear(4, 4, 2, 2, counts.view(), indices.view());
  const Result result = reference::attention_forward(tensors.call(), pattern);
  for (const std::int64_t batch : {0, 1})
    for (const std::int64_t head : {0, 1}) {
      const auto v = values_of(tensors.v);
      // Query token 1 sees key tile 0 in the first batch, 1 in the second: its result lies between those two values.
      const std::int64_t first_key = batch == 0 ? 0 : 2;
      for (std::int64_t i = 0; i < 8; ++i) {
        const auto value = [&](std::int64_t key) {
          return v[static_cast<std::size_t>(((batch * 2 + head) * 4 + key) * 8 + i)];
        };
        const double out = row(result, s, batch, head, 1)[static_cast<std::size_t>(i)];
        CHECK(out >= std::min(value(first_key), value(first_key + 1)) - 1e-12);
        CHECK(out <= std::max(value(first_key), value(first_key + 1)) + 1e-12);
      }
    }
}

TEST_CASE("block lists: arrays give the valid rows of each tile") {
  const Sizes s{.batch = 2, .queries = 8, .keys = 8, .head_dim = 8, .layout = Layout::tiled};
  Tensors tensors(s);
  const HostTensor counts = integers({1, 1, 2}, {2, 1}), indices = integers({1, 1, 2, 2}, {0, 1, 0, 0});
  const HostTensor query_sizes = integers({2}, {4, 1}), key_sizes = integers({2, 2}, {3, 2, 0, 4});
  BlockList pattern = BlockList::linear(8, 8, 4, 4, counts.view(), indices.view());
  pattern.query_sizes = query_sizes.view();
  pattern.key_sizes = key_sizes.view();
  const Result result = reference::attention_forward(tensors.call(), pattern);
  CHECK(close(row(result, s, 0, 0, 3), attend_to(tensors, s, 3, {0, 1, 2, 4, 5})));
  CHECK(close(row(result, s, 0, 0, 4), attend_to(tensors, s, 4, {0, 1, 2})));
  CHECK(lse(result, s, 0, 0, 5) == minus_infinity); // a padding query
  CHECK(lse(result, s, 1, 0, 3) != minus_infinity); // sees key tile 1
  CHECK(lse(result, s, 1, 0, 4) == minus_infinity); // sees only key tile 0, which is empty in the second batch
  CHECK(reference::valid_pairs(tensors.call(), pattern) == 4 * 5 + 1 * 3 + 4 * 4);
}

TEST_CASE("a block list that says what a window says gives the same result") {
  const Sizes s{.heads = 2, .kv_heads = 1, .queries = 2 * 3 * 5, .keys = 2 * 3 * 5, .head_dim = 8};
  Tensors tensors(s);
  // Canvas 2x3x5, tiles 1x2x2: 2x2x3 tiles; window 1x3x2 keeps the plane: tiles 0-5 or 6-11.
  const SlidingTile window{.canvas = {2, 3, 5}, .tile = {1, 2, 2}, .windows = {{1, 3, 3}}};
  const HostTensor counts = integers({1, 1, 12}, std::vector<std::int32_t>(12, 6));
  std::vector<std::int32_t> lists;
  for (std::int32_t tile = 0; tile < 12; ++tile)
    for (std::int32_t i = 0; i < 6; ++i)
      lists.push_back(tile / 6 * 6 + i);
  const HostTensor indices = integers({1, 1, 12, 6}, lists);
  const BlockList list{
      .canvas = window.canvas, .tile = window.tile, .counts = counts.view(), .indices = indices.view()};
  CHECK(
      close(reference::attention_forward(tensors.call(), list), reference::attention_forward(tensors.call(), window)));
  CHECK(reference::valid_pairs(tensors.call(), list) == 2 * 2 * 15 * 15);
}

TEST_CASE("large scores stay finite") {
  const Sizes s{.queries = 3, .keys = 40, .head_dim = 16};
  Tensors tensors(s);
  AttentionForward call = tensors.call();
  call.scale = 1e4f;
  const Result result = reference::attention_forward(call, Dense{});
  for (const double x : result.out)
    CHECK(std::isfinite(x));
  for (const double x : result.lse)
    CHECK(std::isfinite(x));
}

TEST_CASE("attention_forward_into rounds once and writes nothing else") {
  for (const DataType dtype : {DataType::bf16, DataType::fp16}) {
    const Sizes s{.queries = 6, .keys = 6, .head_dim = 8, .dtype = dtype};
    Tensors tensors(s);
    HostTensor out(dtype, {1, 6, 1, 8}, {200, 16, 8, 1});
    AttentionForward call = tensors.call();
    call.out = out.view();
    const SlidingTile pattern{.canvas = {1, 1, 4}, .tile = {1, 1, 2}, .windows = {{1, 1, 1}}, .text_length = 1};
    reference::attention_forward_into(call, pattern);
    const Result result = reference::attention_forward(call, pattern);
    const auto written = values_of(out);
    for (std::size_t i = 0; i < written.size(); ++i)
      CHECK(written[i] == reference::decode(dtype, reference::encode(dtype, result.out[i])));
    const auto written_lse = reference::read_lse(tensors.lse.view());
    for (std::size_t i = 0; i < written_lse.size(); ++i)
      CHECK(written_lse[i] == static_cast<float>(result.lse[i]));
    CHECK(out.unwritten() == 0);
    CHECK(out.damaged_bytes() == 0);
    CHECK(tensors.lse.damaged_bytes() == 0);
  }
}

TEST_CASE("a call that does not fit is refused by name") {
  const Sizes s{.heads = 4, .kv_heads = 2, .queries = 10, .keys = 10, .head_dim = 8};
  Tensors tensors(s);
  const AttentionForward good = tensors.call();
  const auto with = [&](auto change) {
    AttentionForward call = good;
    change(call);
    return problem_of(call, Dense{});
  };
  CHECK(with([](auto& c) { c.q.data = nullptr; }) == "q's pointer is null");
  CHECK(with([](auto& c) { c.k.rank = 3; }) == "k's rank is 3");
  CHECK(with([](auto& c) { c.v.dtype = DataType::float32; }) == "v's dtype is float32");
  CHECK(with([](auto& c) { c.k.extents[0] = 2; }) == "k's batch is 2");
  CHECK(with([](auto& c) { c.v.extents[1] = 9; }) == "v's tokens is 9");
  CHECK(with([](auto& c) { c.k.extents[2] = c.v.extents[2] = 3; }) == "k's heads is 3");
  CHECK(with([](auto& c) { c.k.extents[3] = 4; }) == "k's head_dim is 4");

  using Canvases = std::vector<Window>;
  const auto sliding = [&](Canvas canvas, const Canvases& windows, std::optional<std::int64_t> text) {
    return problem_of(good, SlidingTile{.canvas = canvas, .tile = {1, 1, 2}, .windows = windows, .text_length = text});
  };
  CHECK(sliding({1, 1, 10}, {{1, 1, 3}}, {}) == "no error");
  CHECK(sliding({1, 1, 8}, {{1, 1, 3}}, {}) == "q's tokens is 10");
  CHECK(sliding({1, 1, 8}, {{1, 1, 3}}, 2) == "no error");
  CHECK(sliding({1, 1, 8}, {{1, 1, 3}}, 3) == "text_length is 3");
  CHECK(sliding({1, 1, 8}, {{1, 1, 3}}, -1) == "text_length is -1");
  CHECK(sliding({1, 1, 12}, {{1, 1, 3}}, 0) == "q's tokens is 10");
  CHECK(sliding({1, 0, 10}, {{1, 1, 3}}, {}) == "canvas is '1x0x10'");
  CHECK(sliding({1, 1, 10}, {{1, 0, 3}}, {}) == "window is 1x0x3");
  CHECK(sliding({1, 1, 10}, {}, {}) == "the number of windows is 0");
  CHECK(sliding({1, 1, 10}, {{1, 1, 1}, {1, 1, 3}}, {}) == "the number of windows is 2");

  const auto lists = [&](const std::vector<std::int32_t>& count, const std::vector<std::int32_t>& index) {
    const HostTensor counts = integers({1, 1, 2}, count), indices = integers({1, 1, 2, 2}, index);
    return problem_of(good, BlockList::linear(10, 10, 5, 5, counts.view(), indices.view()));
  };
  CHECK(lists({2, 1}, {0, 1, 1, 0}) == "no error");
  CHECK(lists({2, 3}, {0, 1, 1, 0}) == "counts[0, 0, 1] is 3");
  CHECK(lists({-1, 0}, {0, 1, 1, 0}) == "counts[0, 0, 0] is -1");
  CHECK(lists({2, 2}, {0, 1, 1, 0}) == "indices[0, 0, 1, 1] is 0");
  CHECK(lists({2, 2}, {0, 1, 1, 1}) == "indices[0, 0, 1, 1] is 1");
  CHECK(lists({2, 1}, {0, 2, 1, 1}) == "indices[0, 0, 0, 1] is 2");
  CHECK(lists({1, 1}, {-1, 2, 1, 1}) == "indices[0, 0, 0, 0] is -1");
  const HostTensor counts = integers({1, 1, 2}, {0, 0}), indices = integers({1, 1, 2, 1}, {0, 0});
  BlockList sized = BlockList::linear(10, 10, 5, 5, counts.view(), indices.view());
  sized.key_sizes = counts.view();
  CHECK(problem_of(good, sized) == "layout is raster with sizes given");
  sized = BlockList::linear(10, 10, 5, 5, indices.view(), indices.view());
  CHECK(problem_of(good, sized) == "counts's rank is 4");

  AttentionForward call = good;
  call.out.extents[1] = 9;
  CHECK_THROWS_WITH_AS(reference::attention_forward_into(call, Dense{}), doctest::Contains("out's extents"), Error);
  call = good;
  call.out.dtype = DataType::fp16;
  CHECK_THROWS_WITH_AS(reference::attention_forward_into(call, Dense{}), doctest::Contains("out's dtype is fp16"),
                       Error);
  CHECK(tensors.out.unwritten() == 10 * 4 * 8);
}
