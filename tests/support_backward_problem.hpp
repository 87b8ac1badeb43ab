// Random problems for the backward kernels, against gradients computed pair by pair in float64. The row statistics and
// the transposed lists, which other kernels make, are made here.
#pragma once

#include <cmath>
#include <cstdint>
#include <functional>
#include <limits>
#include <string>
#include <vector>

#include "driver/executor.hpp"
#include "operators/call_shape.hpp"
#include "operators/launch.hpp"
#include "operators/launch_backward_sm90.hpp"
#include "support_random_problem.hpp"

namespace tilewright::testing {

/// Where kernels find tensors. put: the address of a copy of these bytes (aligned as they are); collect: copies them
/// all back.
struct Placement {
  std::function<void*(void* bytes, std::size_t count)> put = [](void* bytes, std::size_t) { return bytes; };
  std::function<void()> collect = [] {};
};

inline std::int32_t rounded_up(std::int64_t rows) {
  return static_cast<std::int32_t>((rows + row_statistics_multiple - 1) / row_statistics_multiple *
                                   row_statistics_multiple);
}

inline HostTensor like(const TensorView& view) {
  const auto& e = view.extents;
  return HostTensor(view.dtype, {e[0], e[1], e[2], e[3]},
                    std::vector<std::int64_t>(view.strides.begin(), view.strides.begin() + 4));
}

struct Gradients {
  std::vector<double> q, k, v; // [batch, heads, rows, head_dim]
};

class BackwardProblem {
public:
  BackwardProblem(std::uint64_t seed, const RandomLimits& limits)
      : random_(seed, limits), call_(random_.call()), pattern_(random_.pattern()),
        shape_(operators::check_call(call_, pattern_)), relation_(call_, pattern_), output_gradient_(like(call_.q)),
        forward_(reference::attention_forward(call_, pattern_)) {
    std::mt19937_64 generator(seed + 77);
    std::normal_distribution<double> normal;
    output_gradient_.fill([&](auto b, auto i, auto j, auto) -> std::optional<double> {
      const bool padding =
          relation_.query_group(b, call_.layout == Layout::raster ? i : j) == reference::Relation::padding;
      const double value = normal(generator);
      return padding ? std::nullopt : std::optional(value); // padding stays NaN
    });
    compute_expected();
    make_statistics();
    if (const auto* lists = std::get_if<BlockList>(&pattern_))
      transpose(*lists);
  }

  [[nodiscard]] Problem problem(Operator op) const {
    Problem problem = random_.problem();
    problem.op = op;
    return problem;
  }
  [[nodiscard]] std::string description() const { return random_.description(); }

  /// Runs one kernel on poisoned gradients and says what is wrong with them; the gradients' bytes go to `bytes`.
  std::string check(Executor& executor, const Spec& spec, std::vector<std::byte>& bytes,
                    const Placement& placement = {}) {
    const auto kernel = executor.kernel(spec, nullptr);
    const bool of_keys = spec.problem.op == Operator::attention_backward_key;
    HostTensor dq = like(call_.q), dk = like(call_.k), dv = like(call_.v);
    const auto placed = [&](HostTensor& tensor) -> void* {
      return static_cast<std::byte*>(placement.put(tensor.allocation(), tensor.allocation_bytes())) +
             HostTensor::guard_bytes;
    };
    const auto placed_words = [&](auto& words, std::size_t first) {
      return words.empty() ? words.data()
                           : static_cast<decltype(words.data())>(
                                 placement.put(words.data() + first, (words.size() - first) * sizeof(words[0])));
    };
    const auto [call, any_pattern] = random_.relocated([&](void* data) -> void* {
      for (HostTensor& tensor : random_.tensors())
        if (tensor.view().data == data)
          return placed(tensor);
      return data;
    });
    const operators::LaunchRequest request{call, any_pattern, shape_, spec};
    std::visit(
        [&](const auto& pattern) {
          const auto parameters = operators::pattern_parameters(request, pattern);
          AttentionBackwardArguments<std::decay_t<decltype(parameters)>> arguments{};
          arguments.call = {operators::attention_parameters(request, spec.schedule.block_q, spec.schedule.block_k),
                            parameters};
          BackwardParameters& b = arguments.backward;
          const auto strides = [&](const HostTensor& tensor) {
            return operators::strides_of(tensor.view(), call_.layout);
          };
          b.output_gradient = placed(output_gradient_);
          b.query_gradient = placed(dq);
          b.key_gradient = placed(dk);
          b.value_gradient = placed(dv);
          b.output_gradient_strides = strides(output_gradient_);
          b.query_gradient_strides = strides(dq);
          b.key_gradient_strides = strides(dk);
          b.value_gradient_strides = strides(dv);
          b.statistics = statistics_;
          b.statistics.exponents = placed_words(exponents_, exponents_first_);
          b.statistics.deltas = placed_words(deltas_, deltas_first_);
          b.transposed = {placed_words(offsets_, 0), placed_words(indices_, 0), offsets_batch_stride_,
                          offsets_head_stride_,      shape_.heads * capacity_,  capacity_};
          b.scale = static_cast<float>(scale());
          operators::launch_backward_sm90(executor, *kernel, spec, arguments, static_cast<std::int32_t>(shape_.batch),
                                          2, nullptr);
        },
        any_pattern);
    placement.collect();
    std::string wrong;
    const auto compare = [&](const char* name, HostTensor& tensor, const std::vector<double>& expected) {
      if (const auto count = tensor.unwritten(); count > 0)
        wrong += fmt::format("\n  {} elements of {} were not written", count, name);
      if (const auto count = tensor.damaged_bytes(); count > 0)
        wrong += fmt::format("\n  {} bytes beside {}'s elements were written", count, name);
      const auto actual = reference::read_tensor(tensor.view(), call_.layout);
      const double error = reference::output_error(actual, expected).relative_l2;
      // Issue 5's: probabilities, their gradients and the results are rounded to 8 or 11 bits each.
      const double tolerance = call_.q.dtype == DataType::bf16 ? 1e-2 : 3e-3;
      if (!(error <= tolerance))
        wrong += fmt::format("\n  {}: relative L2 error {:.3g} > {:.3g}", name, error, tolerance);
      bytes.insert(bytes.end(), tensor.allocation(), tensor.allocation() + tensor.allocation_bytes());
    };
    if (of_keys) {
      compare("dk", dk, expected_.k);
      compare("dv", dv, expected_.v);
    } else {
      compare("dq", dq, expected_.q);
    }
    return wrong;
  }

private:
  [[nodiscard]] double scale() const {
    return call_.scale ? *call_.scale : 1 / std::sqrt(static_cast<double>(shape_.head_dim));
  }

  void compute_expected() {
    const std::int64_t d = shape_.head_dim, queries = shape_.query_tokens, keys = shape_.key_tokens;
    const std::int64_t group = shape_.heads / shape_.kv_heads;
    const auto q = reference::read_tensor(call_.q, call_.layout), k = reference::read_tensor(call_.k, call_.layout),
               v = reference::read_tensor(call_.v, call_.layout),
               dout = reference::read_tensor(output_gradient_.view(), call_.layout);
    expected_ = {std::vector<double>(q.size()), std::vector<double>(k.size()), std::vector<double>(v.size())};
    delta_.assign(static_cast<std::size_t>(shape_.batch * shape_.heads * queries), 0);
    for (std::int64_t b = 0; b < shape_.batch; ++b)
      for (std::int64_t head = 0; head < shape_.heads; ++head)
        for (std::int64_t i = 0; i < queries; ++i) {
          const std::int64_t row = (b * shape_.heads + head) * queries + i;
          const double lse = forward_.lse[static_cast<std::size_t>(row)];
          if (relation_.query_group(b, i) == reference::Relation::padding || std::isinf(lse))
            continue;
          const double* const q_row = &q[static_cast<std::size_t>(row * d)];
          const double* const dout_row = &dout[static_cast<std::size_t>(row * d)];
          double delta = 0;
          for (std::int64_t c = 0; c < d; ++c)
            delta += dout_row[c] * forward_.out[static_cast<std::size_t>(row * d + c)];
          delta_[static_cast<std::size_t>(row)] = delta;
          for (std::int64_t j = 0; j < keys; ++j) {
            if (!relation_.attends(b, head, i, j))
              continue;
            const auto at = static_cast<std::size_t>(((b * shape_.kv_heads + head / group) * keys + j) * d);
            double score = 0, dp = 0;
            for (std::size_t c = 0; c < static_cast<std::size_t>(d); ++c) {
              score += q_row[c] * k[at + c];
              dp += dout_row[c] * v[at + c];
            }
            const double p = std::exp(scale() * score - lse), ds = scale() * p * (dp - delta);
            for (std::size_t c = 0; c < static_cast<std::size_t>(d); ++c) {
              expected_.q[static_cast<std::size_t>(row * d) + c] += ds * k[at + c];
              expected_.k[at + c] += ds * q_row[c];
              expected_.v[at + c] += p * dout_row[c];
            }
          }
        }
  }

  /// Where a query token's statistics stand: in the order of tiles.
  [[nodiscard]] std::int64_t statistics_row(std::int64_t token, std::int64_t video, const Extent3& tile) const {
    if (token >= video)
      return statistics_.text_first + token - video;
    if (call_.layout == Layout::tiled || tile == Extent3{})
      return token;
    const Extent3& canvas = shape_.query_canvas;
    const std::int64_t t = token / (canvas.h * canvas.w), h = token / canvas.w % canvas.h, w = token % canvas.w;
    const std::int64_t tiles_h = (canvas.h + tile.h - 1) / tile.h, tiles_w = (canvas.w + tile.w - 1) / tile.w;
    const std::int64_t number = (t / tile.t * tiles_h + h / tile.h) * tiles_w + w / tile.w;
    return number * tile.volume() + (t % tile.t * tile.h + h % tile.h) * tile.w + w % tile.w;
  }

  void make_statistics() {
    const Extent3 tile = random_.problem().tile;
    const std::int64_t video = shape_.query_tokens - shape_.text_rows;
    std::int64_t video_rows = video;
    if (tile != Extent3{}) {
      const TokenGrid grid = operators::grid_of(shape_.query_canvas, tile);
      video_rows = std::int64_t{grid.tiles_t} * grid.tiles_h * grid.tiles_w * tile.volume();
    }
    statistics_.text_first = rounded_up(video_rows);
    statistics_.rows = statistics_.text_first + rounded_up(shape_.text_rows);
    statistics_.head_stride = statistics_.rows;
    statistics_.batch_stride = statistics_.rows * shape_.heads;
    const auto size = static_cast<std::size_t>(statistics_.batch_stride * shape_.batch);
    constexpr std::size_t alignment = 16;
    const auto make = [&](std::vector<float>& floats, std::size_t& first, float value) {
      floats.assign(size + alignment / sizeof(float), value);
      while (reinterpret_cast<std::uintptr_t>(floats.data() + first) % alignment != 0)
        ++first;
    };
    make(exponents_, exponents_first_, -std::numeric_limits<float>::infinity());
    make(deltas_, deltas_first_, 0);
    for (std::int64_t b = 0; b < shape_.batch; ++b)
      for (std::int64_t head = 0; head < shape_.heads; ++head)
        for (std::int64_t i = 0; i < shape_.query_tokens; ++i) {
          const auto from = static_cast<std::size_t>((b * shape_.heads + head) * shape_.query_tokens + i);
          const auto to =
              static_cast<std::size_t>((b * shape_.heads + head) * statistics_.rows + statistics_row(i, video, tile));
          const double lse = forward_.lse[from];
          if (relation_.query_group(b, i) == reference::Relation::padding || std::isinf(lse))
            continue;
          exponents_[exponents_first_ + to] = static_cast<float>(-lse * 1.4426950408889634);
          deltas_[deltas_first_ + to] = static_cast<float>(delta_[from]);
        }
  }

  void transpose(const BlockList& lists) {
    const Problem problem = random_.problem();
    const auto count = [](const TokenGrid& grid) { return std::int64_t{grid.tiles_t} * grid.tiles_h * grid.tiles_w; };
    const std::int64_t tiles = count(operators::grid_of(shape_.query_canvas, problem.tile));
    const std::int64_t key_tiles = count(operators::grid_of(shape_.key_canvas, problem.key_tile));
    capacity_ = tiles * key_tiles;
    offsets_head_stride_ = key_tiles + 1;
    offsets_batch_stride_ = offsets_head_stride_ * shape_.heads;
    const auto at = [](const TensorView& view, std::int64_t b, std::int64_t head, std::int64_t tile, std::int64_t i) {
      const std::int64_t shared_b = view.extents[0] == 1 ? 0 : b, shared_head = view.extents[1] == 1 ? 0 : head;
      return static_cast<const std::int32_t*>(
          view.data)[shared_b * view.strides[0] + shared_head * view.strides[1] + tile * view.strides[2] +
                     (view.rank == 4 ? i * view.strides[3] : 0)];
    };
    for (std::int64_t b = 0; b < shape_.batch; ++b)
      for (std::int64_t head = 0; head < shape_.heads; ++head) {
        std::vector<std::vector<std::int32_t>> seen_by(static_cast<std::size_t>(key_tiles));
        for (std::int64_t tile = 0; tile < tiles; ++tile)
          for (std::int64_t i = 0; i < at(lists.counts, b, head, tile, 0); ++i)
            seen_by[static_cast<std::size_t>(at(lists.indices, b, head, tile, i))].push_back(
                static_cast<std::int32_t>(tile));
        const std::size_t first = indices_.size();
        offsets_.push_back(0);
        for (const auto& list : seen_by) {
          indices_.insert(indices_.end(), list.begin(), list.end());
          offsets_.push_back(static_cast<std::int32_t>(indices_.size() - first));
        }
        indices_.resize(first + static_cast<std::size_t>(capacity_), -1);
      }
  }

  RandomProblem random_;
  AttentionForward call_;
  Pattern pattern_;
  operators::CallShape shape_;
  reference::Relation relation_;
  HostTensor output_gradient_;
  reference::Result forward_;
  Gradients expected_;
  std::vector<double> delta_;
  RowStatistics statistics_{};
  std::vector<float> exponents_, deltas_;
  std::size_t exponents_first_ = 0, deltas_first_ = 0;
  std::vector<std::int32_t> offsets_, indices_;
  std::int64_t offsets_batch_stride_ = 0, offsets_head_stride_ = 0, capacity_ = 0;
};

} // namespace tilewright::testing
