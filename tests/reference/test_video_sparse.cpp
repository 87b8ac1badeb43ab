// The reference of video sparse attention on problems small enough to compute by hand.
#include <doctest/doctest.h>

#include <cmath>
#include <vector>

#include "support_tensor.hpp"
#include <tilewright/reference.hpp>

using namespace tilewright;
using namespace tilewright::testing;

namespace {

/// One head of 5 tokens with 2 elements, in tiles of 2: the last tile has one token.
struct Five {
  HostTensor tensor{DataType::fp16, {1, 5, 1, 2}};
  explicit Five(std::vector<double> values) {
    tensor.fill([&](auto, auto token, auto, auto i) { return values[static_cast<std::size_t>(token * 2 + i)]; });
  }
};

constexpr Canvas canvas{1, 1, 5};
constexpr Tile tile{1, 1, 2};

} // namespace

TEST_CASE("means count the tokens that there are") {
  Five q({1, 2, 3, 4, 5, 6, 7, 8, 9, 10});
  CHECK(reference::pool_tiles({q.tensor.view(), {}, Layout::raster, canvas, tile}) ==
        std::vector<double>{2, 3, 6, 7, 9, 10});
  // 1/3 is rounded to fp16.
  HostTensor thirds(DataType::fp16, {1, 1, 3, 1});
  thirds.fill([](auto, auto, auto token, auto) { return token == 2 ? 1.0 : 0.0; });
  const auto means = reference::pool_tiles({thirds.view(), {}, Layout::tiled, {1, 1, 3}, {1, 1, 3}});
  CHECK(means.front() == 0.333251953125);
}

TEST_CASE("the operator by hand: coarse, chosen, blended") {
  // Keys: means (1, 0), (0, 1), (-1, 0). Queries all (2, 0): scores 2, 0, -2 with scale 1, so tile 0 is chosen.
  Five q({2, 0, 2, 0, 2, 0, 2, 0, 2, 0}), k({1, 0, 1, 0, 0, 1, 0, 1, -1, 0}), v({1, 0, 3, 0, 5, 0, 5, 0, 0, 8}),
      gate({1, 1, 0, 0, 2, 2, 1, 1, -1, -1}), out({0, 0, 0, 0, 0, 0, 0, 0, 0, 0});
  VideoSparseAttention call{.q = q.tensor.view(), .k = k.tensor.view(), .v = v.tensor.view(), .out = out.tensor.view()};
  call.gate = gate.tensor.view();
  call.scale = 1.0f;
  call.canvas = canvas;
  call.tile = tile;
  call.topk = 1;
  const reference::VideoSparseResult result = reference::video_sparse_attention(call);
  CHECK(result.selection.indices == std::vector<std::int32_t>{0, 0, 0});
  const double sum = std::exp(2) + 1 + std::exp(-2);
  // Means of v: (2, 0), (5, 0), (0, 8).
  const double coarse[2] = {(2 * std::exp(2) + 5) / sum, 8 * std::exp(-2) / sum};
  CHECK(result.selection.lse[0] == doctest::Approx(std::log(sum)));
  CHECK(result.selection.out[0] == doctest::Approx(coarse[0]));
  CHECK(result.selection.out[1] == doctest::Approx(coarse[1]));
  // Both keys of tile 0 are alike: the fine result is the mean of their values, (2, 0).
  CHECK(result.fine[0] == doctest::Approx(2));
  CHECK(result.lse[0] == doctest::Approx(2 + std::log(2)));
  const double gates[5] = {1, 0, 2, 1, -1};
  for (std::size_t token = 0; token < 5; ++token) {
    CHECK(result.out[2 * token] == doctest::Approx(2 + gates[token] * coarse[0]));
    CHECK(result.out[2 * token + 1] == doctest::Approx(gates[token] * coarse[1]));
  }
}

TEST_CASE("equal scores go to the lower tile, and a comparison of lists knows what is allowed") {
  Five q({1, 0, 1, 0, 1, 0, 1, 0, 1, 0}), k({1, 0, 1, 0, 3, 0, 3, 0, 1, 0});
  VideoSparseAttention call{.q = q.tensor.view(), .k = k.tensor.view(), .v = k.tensor.view(), .out = q.tensor.view()};
  call.canvas = canvas;
  call.tile = tile;
  call.topk = 2;
  const auto selection = reference::video_sparse_attention(call).selection;
  CHECK(selection.indices == std::vector<std::int32_t>{0, 1, 0, 1, 0, 1});

  HostTensor queries(DataType::fp16, {1, 1, 1, 2}), keys(DataType::fp16, {1, 1, 3, 2}),
      counts(DataType::int32, {1, 1, 1}), indices(DataType::int32, {1, 1, 1, 2});
  queries.fill([](auto, auto, auto, auto i) { return i == 0 ? 1.0 : 0.0; });
  keys.fill([](auto, auto, auto key, auto i) { return i == 0 ? (key == 1 ? 3.0 : 1.0) : 0.0; });
  counts.fill([](auto...) { return 2.0; });
  SelectTiles select;
  select.query_means = queries.view();
  select.key_means = keys.view();
  select.counts = counts.view();
  select.indices = indices.view();
  const reference::Selection expected = reference::select_tiles(select);
  const auto compared_with = [&](int first, int second) {
    indices.fill([&](auto, auto, auto, auto i) { return static_cast<double>(i == 0 ? first : second); });
    return reference::compare_selection(select, expected);
  };
  CHECK(compared_with(0, 1).different == 0);
  CHECK(compared_with(1, 2).different == 1); // the other of two equal scores
  CHECK(compared_with(1, 2).worst > 1);      // but they must go to the lower tile
  CHECK(compared_with(0, 2).worst > 1);      // the best one is missing
  CHECK(!compared_with(1, 0).malformed.empty());
  CHECK(!compared_with(1, 3).malformed.empty());
}
