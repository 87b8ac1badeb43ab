// The reference's gradients of video sparse attention against finite differences of its forward pass, whose selection
// stays as it was: it has no gradient.
#include <doctest/doctest.h>

#include <cmath>
#include <cstdint>
#include <functional>
#include <list>
#include <numeric>
#include <optional>
#include <random>
#include <vector>

#include "support_tensor.hpp"
#include <tilewright/reference.hpp>

using namespace tilewright;
using testing::HostTensor;

namespace {

/// Values are multiples of 1/32 below 1.3, so that steps of 1/32 and means of 1, 2 and 4 of them are exact in fp16: the
/// rounding of the means, which the gradient does not see, changes nothing.
constexpr double step = 1.0 / 32;
constexpr std::int64_t batch = 2, heads = 4, kv_heads = 2, head_dim = 16;

struct Setting {
  Layout layout = Layout::raster;
  Canvas canvas{}, key_canvas{};
  bool gated = true;
  std::vector<std::int32_t> query_sizes{}, key_sizes{}; // [tiles], tiled layout
};
constexpr Tile tile{1, 2, 2};

/// A tensor and its values in the order of the reference's results, [batch, heads, tokens, head_dim].
class Input {
public:
  Input(Layout layout, std::int64_t tokens, std::int64_t head_count, std::mt19937_64& random)
      : layout_(layout), tokens_(tokens), heads_(head_count),
        tensor_(layout == Layout::raster ? HostTensor(DataType::fp16, {batch, tokens, head_count, head_dim})
                                         : HostTensor(DataType::fp16, {batch, head_count, tokens, head_dim})),
        values(static_cast<std::size_t>(batch * tokens * head_count * head_dim)) {
    std::uniform_int_distribution<int> steps(-40, 40);
    for (double& value : values)
      value = steps(random) * step;
    write({}, 0);
  }

  /// The values, moved by so many steps in each element's direction.
  void write(const std::vector<double>& directions, double steps) {
    tensor_.fill([&](auto b, auto i, auto j, auto e) {
      const auto token = layout_ == Layout::raster ? i : j, head = layout_ == Layout::raster ? j : i;
      const auto at = static_cast<std::size_t>(((b * heads_ + head) * tokens_ + token) * head_dim + e);
      return values[at] + (directions.empty() ? 0 : steps * step * directions[at]);
    });
  }
  [[nodiscard]] const TensorView& view() const { return tensor_.view(); }

private:
  Layout layout_;
  std::int64_t tokens_, heads_;
  HostTensor tensor_;

public:
  std::vector<double> values;
};

std::int64_t rows_of(const Canvas& canvas, Layout layout) {
  const auto whole = [](std::int32_t extent, std::int32_t of_tile) {
    return std::int64_t{(extent + of_tile - 1) / of_tile} * of_tile;
  };
  return layout == Layout::raster ? canvas.volume()
                                  : whole(canvas.t, tile.t) * whole(canvas.h, tile.h) * whole(canvas.w, tile.w);
}

struct SmallProblem {
  SmallProblem(const Setting& setting, std::uint64_t seed)
      : random(seed), q(setting.layout, rows_of(setting.canvas, setting.layout), heads, random),
        k(setting.layout, rows_of(setting.key_canvas, setting.layout), kv_heads, random),
        v(setting.layout, rows_of(setting.key_canvas, setting.layout), kv_heads, random),
        gate(setting.layout, rows_of(setting.canvas, setting.layout), heads, random),
        dout(setting.layout, rows_of(setting.canvas, setting.layout), heads, random) {
    VideoSparseAttention& forward = call.forward;
    forward.q = q.view();
    forward.k = k.view();
    forward.v = v.view();
    if (setting.gated)
      forward.gate = gate.view();
    forward.out = dout.view(); // its extents
    forward.layout = setting.layout;
    forward.canvas = setting.canvas;
    forward.key_canvas = setting.key_canvas;
    forward.tile = tile;
    forward.topk = 2;
    forward.query_sizes = sizes_of(setting.query_sizes);
    forward.key_sizes = sizes_of(setting.key_sizes);
    call.dout = dout.view();
    chosen = reference::video_sparse_attention(forward).selection.indices;
    const auto lists = static_cast<std::int64_t>(chosen.size()) / forward.topk / (batch * heads);
    counts.assign(chosen.size() / 2, 2);
    indices_view = TensorView::contiguous(chosen.data(), DataType::int32, {batch, heads, lists, 2});
    counts_view = TensorView::contiguous(counts.data(), DataType::int32, {batch, heads, lists});
  }

  /// sum(dout * out) with the selection as it was at first.
  double loss() {
    const auto out = reference::video_sparse_attention(call.forward, &counts_view, &indices_view).out;
    return std::inner_product(out.begin(), out.end(), dout.values.begin(), 0.0);
  }

  std::mt19937_64 random;
  Input q, k, v, gate, dout;
  VideoSparseAttentionBackward call;
  std::vector<std::int32_t> chosen, counts;
  TensorView counts_view, indices_view;

private:
  std::optional<TensorView> sizes_of(const std::vector<std::int32_t>& values) {
    if (values.empty())
      return std::nullopt;
    auto& kept = sizes_.emplace_back(values);
    return TensorView::contiguous(kept.data(), DataType::int32, {static_cast<std::int64_t>(kept.size())});
  }
  std::list<std::vector<std::int32_t>> sizes_;
};

/// The derivative of the loss along random signs of one input: by the gradient, and by central differences.
void check_direction(SmallProblem& problem, Input& input, const std::vector<double>& gradient) {
  std::vector<double> signs(gradient.size());
  std::bernoulli_distribution coin;
  for (double& sign : signs)
    sign = coin(problem.random) ? 1 : -1;
  input.write(signs, 1);
  const double above = problem.loss();
  input.write(signs, -1);
  const double below = problem.loss();
  input.write({}, 0);
  const double found = (above - below) / (2 * step);
  const double expected = std::inner_product(gradient.begin(), gradient.end(), signs.begin(), 0.0);
  const double norm = std::sqrt(std::inner_product(gradient.begin(), gradient.end(), gradient.begin(), 0.0));
  CHECK(norm > 0);
  // The sum over random signs is about the norm. Central differences leave out terms of the second order in the step.
  CHECK(std::abs(found - expected) <= 1e-2 * norm);
}

void check(const Setting& setting) {
  for (const std::uint64_t seed : {1U, 2U, 3U}) {
    SmallProblem problem(setting, seed);
    const reference::VideoSparseGradients gradients =
        reference::video_sparse_attention_backward(problem.call, &problem.counts_view, &problem.indices_view);
    check_direction(problem, problem.q, gradients.dq);
    check_direction(problem, problem.k, gradients.dk);
    check_direction(problem, problem.v, gradients.dv);
    if (setting.gated)
      check_direction(problem, problem.gate, gradients.dgate);
    else
      CHECK(gradients.dgate.empty());
  }
}

} // namespace

TEST_CASE("gradients of video sparse attention are finite differences: raster with clipped tiles") {
  check({.canvas = {2, 3, 5}, .key_canvas = {2, 3, 5}});
}

TEST_CASE("gradients of video sparse attention are finite differences: no gate and other keys") {
  check({.canvas = {1, 4, 4}, .key_canvas = {3, 3, 4}, .gated = false});
}

TEST_CASE("gradients of video sparse attention are finite differences: sizes with empty tiles") {
  check({.layout = Layout::tiled,
         .canvas = {2, 2, 4},
         .key_canvas = {1, 4, 6},
         .query_sizes = {4, 1, 0, 2},
         .key_sizes = {2, 4, 0, 1, 4, 0}});
}

TEST_CASE("padding has no gradient in video sparse attention") {
  const Setting setting{.layout = Layout::tiled,
                        .canvas = {1, 2, 4},
                        .key_canvas = {1, 2, 6},
                        .query_sizes = {4, 1},
                        .key_sizes = {2, 0, 3}};
  SmallProblem problem(setting, 7);
  const auto gradients = reference::video_sparse_attention_backward(problem.call);
  const auto is_zero = [&](const std::vector<double>& values, std::int64_t rows, auto padding) {
    bool zero = true;
    for (std::size_t at = 0; at < values.size(); ++at)
      if (padding(static_cast<std::int64_t>(at) / head_dim % rows))
        zero = zero && values[at] == 0;
    return zero;
  };
  const auto query_padding = [](std::int64_t row) { return row > 4; };
  const auto key_padding = [](std::int64_t row) { return (row > 1 && row < 8) || row == 11; };
  CHECK(is_zero(gradients.dq, 8, query_padding));
  CHECK(is_zero(gradients.dgate, 8, query_padding));
  CHECK(is_zero(gradients.dk, 12, key_padding));
  CHECK(is_zero(gradients.dv, 12, key_padding));
}
